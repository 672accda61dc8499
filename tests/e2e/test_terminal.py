# SPDX-License-Identifier: Apache-2.0
"""The terminal in front of a real market: live, through the coordinator's death, and by the mesh alone meanwhile."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from qubix_node.offers import price
from qubix_tui.settings import Settings
from tests.support.market import Market
from tests.tui.world import terminal, text
from tests.tui.world import until as until_on_screen

RATE, SINCE = 54_321, 65_432
until = partial(until_on_screen, deadline_s=90.0)
"""Processes start meanwhile."""


class OffersMarket(Market):
    """No job runs here: there is nothing to verify."""

    def start_verifier(self, name: str = "verifier") -> None:  # type: ignore[override]
        return None


@pytest.mark.asyncio
async def test_the_market_live_then_by_the_mesh_alone_then_live_again(folder: Path) -> None:
    with OffersMarket(folder, QUBIX_NODE_RATE_QU_PER_H=str(RATE)) as market:
        market.start_node("node", "tests.support.quick_node", QUBIX_NODE_THREADS="1")
        given = Settings(coordinator_url=market.url, token=market.token, data_dir=folder / "person", tries_max=1)
        async with terminal(replace(given, timeout_s=5.0), (100, 40)) as (app, pilot):
            await until(pilot, lambda: f"{RATE:,}" in text(app) and "● live" in text(app), "the node's offer")
            await pilot.press("8")
            await until(pilot, lambda: "1 connected of" in text(app), "a connection to the gateway")
            market.parts["coordinator"].kill()
            price.announce(market.folder / "node" / "node", SINCE, RATE)
            await until(pilot, lambda: f"{SINCE:,}" in text(app), "the node's own word, with nobody to pass it on")
            assert "● live" not in text(app)
            await pilot.press("1")
            await until(pilot, lambda: f"{RATE:,}" in text(app) and " old" in text(app), "the last data, and its age")
            market.start_coordinator()
            await until(pilot, lambda: f"{SINCE:,}" in text(app) and "● live" in text(app), "the market as it is now")
