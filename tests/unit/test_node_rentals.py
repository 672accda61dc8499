# SPDX-License-Identifier: Apache-2.0
"""The node's own side of rentals, while the coordinator speaks in between."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from qubix_node.clock import wall_ms
from qubix_node.link import Live
from qubix_node.offers.wishes import Wishes
from qubix_node.rentals.desk import Rentals
from qubix_node.rentals.maintenance import Maintenance
from qubix_node.rentals.rules import QUIET_MS
from qubix_protocol.messages import Message, RentalEnd, RentalNotice, RentalStart
from qubix_protocol.states import RentalReason
from qubix_protocol.units import RENTAL_S_MIN

RENTAL = "00000000-0000-4000-8000-000000000001"
OTHER = "00000000-0000-4000-8000-000000000002"


@dataclass
class EndingLine:
    """A line on which the coordinator ends a rental while it is still being told of it."""

    rentals: Rentals
    session: Any = field(default_factory=lambda: SimpleNamespace(coordinator_ms=wall_ms))
    heard: list[Message] = field(default_factory=list)

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        self.heard.append(message)
        assert isinstance(message, RentalNotice)
        end = RentalEnd(rental_id=message.rental_id, reason=RentalReason.PROVIDER_GONE, billed_ms=0, paid_qu=0)
        assert self.rentals.command(end)


@pytest.mark.trio
async def test_a_rental_that_ends_while_its_notice_is_sent_is_gone_and_the_node_goes_on(tmp_path: Path) -> None:
    """It was not spoken of for long, as after a lost line: the node would have forgotten it by itself."""
    said: list[Message] = []

    def cards() -> list[str]:
        return ["GPU-1", "GPU-2"]

    maintenance = Maintenance(tmp_path)
    wishes = Wishes(tmp_path, say=said.append, devices=cards, local=lambda: "", rate=lambda _: 1, changed=lambda: None)
    rentals = Rentals(
        say=said.append,
        devices=cards,
        changed=lambda: None,
        maintenance=maintenance,
        rate_qu_per_h=lambda _: 1,
        wishes=wishes,
    )
    for rental_id, device_id in ((RENTAL, "GPU-1"), (OTHER, "GPU-2")):
        rentals.command(
            RentalStart(
                rental_id=rental_id, device_id=device_id, rate_qu_per_h=1, seconds=RENTAL_S_MIN, offer_digest=bytes(32)
            )
        )
        rentals._held[rental_id].heard_ms -= QUIET_MS
    assert rentals.held() == (RENTAL, OTHER)
    (tmp_path / "maintenance.json").write_text(json.dumps({"ends_ms": wall_ms()}))
    line = EndingLine(rentals)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rentals.attend, cast("Live", line))
            while rentals.held():  # noqa: ASYNC110
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert [message.rental_id for message in line.heard if isinstance(message, RentalNotice)] == [RENTAL, OTHER]
