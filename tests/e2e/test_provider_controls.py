# SPDX-License-Identifier: Apache-2.0
"""A provider sets a price and pauses a device from afar, on real processes; a restart of the node forgets nothing."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

import qubix
from qubix_protocol.states import Availability
from qubix_protocol.wishes import ProviderDeviceView, WishState
from tests.e2e.test_dispute import token_of
from tests.e2e.test_main_job import client, offers, until
from tests.support.market import Market


@pytest.mark.slow
def test_price_and_pause_reach_the_node_and_outlive_its_restart(folder: Path) -> None:
    with Market(folder) as market:
        node = market.start_node()
        with client(market) as consumer:
            until(offers(consumer, 1))
            token = asyncio.run(token_of(market, node.info["peer_id"]))
            with qubix.Client(market.url, token=token, data_dir=folder / "owner") as owner:
                (device,) = owner.provider.devices().devices

                def now() -> ProviderDeviceView:
                    (found,) = owner.provider.devices().devices
                    return found

                def so(rate: int, availability: Availability) -> Callable[[], bool]:
                    def look() -> bool:
                        found = now()
                        done = found.wish is not None and found.wish.state is WishState.DONE
                        return done and (found.rate_qu_per_h, found.availability) == (rate, availability)

                    return look

                rate = device.rate_qu_per_h + 1_234
                owner.provider.wish(device.listing_id, rate_qu_per_h=rate, paused=True)
                until(so(rate, Availability.DRAINING))
                node.stop()
                market.start_node()
                until(so(rate, Availability.DRAINING))
                owner.provider.wish(device.listing_id, paused=False)
                until(so(rate, Availability.AVAILABLE))
                (offer,) = consumer.offers()
                assert offer.rate_qu_per_h == rate
