# SPDX-License-Identifier: Apache-2.0
"""Renting by key: whatever is cheapest or free when it is asked again, one key is one rental."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from qubix.client import Client
from qubix.errors import Conflict
from qubix.settings import Settings
from qubix_protocol.api import OffersView
from qubix_protocol.rentals import RentalBody, RentalView
from qubix_protocol.states import DeviceKind, RentalReason, RentalState
from tests.support.fake_api import TOKEN, FakeApi, Refusal, Seen, listing, now_ms

DEVICES = [listing("a", 300), listing("b", 100), listing("c", 200)]
BY_NAME = {one.provider: one.listing_id for one in DEVICES}


class Market(FakeApi):
    """It keeps a key with the rental that it made, and none with what it refused, as the coordinator does."""

    def __init__(self) -> None:
        super().__init__()
        self.offered = list(DEVICES)
        self.taken: set[str] = set()
        self.rented: dict[str, RentalBody] = {}

    def _get_offers(self, seen: Seen, listing_id: str = "", readings: str = "") -> tuple[int, Any]:
        return 200, OffersView(offers=tuple(self.offered), cursor="0.0")

    def _post_rentals(self, seen: Seen) -> tuple[int, Any]:
        body, key = msgspec.json.decode(seen.body, type=RentalBody), seen.headers["idempotency-key"]
        known = self.rented.get(key)
        if known is None:
            if body.listing_id in self.taken:
                raise Refusal(409, "conflict", "somebody was faster", field="listing_id")
            self.rented[key] = known = body
            self.taken.add(body.listing_id)
        elif known.listing_id != body.listing_id:
            raise Refusal(409, "cause_reused", "the key was used", field="Idempotency-Key")
        return 201, view_of(known)


def view_of(body: RentalBody) -> RentalView:
    return RentalView(
        rental_id="00000000-0000-0000-0000-000000000007",
        state=RentalState.REQUESTED,
        reason=RentalReason.NONE,
        reason_text="",
        detail="",
        listing_id=body.listing_id,
        provider="somebody",
        device_id="cpu",
        kind=DeviceKind.CPU,
        model="device",
        backends=("cpu",),
        rate_qu_per_h=body.rate_qu_per_h_max or 0,
        seconds=body.seconds,
        hold_qu=1,
        held_qu=1,
        paid_qu=0,
        fee_qu=0,
        returned_qu=0,
        billed_ms=0,
        owed_qu=0,
        created_ms=now_ms(),
        started_ms=None,
        ends_ms=None,
        ended_ms=None,
        answered_ms=None,
    )


def test_the_next_device_is_rented_under_the_same_key_and_asking_again_rents_no_second_one(tmp_path: Path) -> None:
    with (
        Market() as market,
        Client(settings=Settings(coordinator_url=market.url, token=TOKEN, data_dir=tmp_path)) as me,
    ):
        market.taken.add(BY_NAME["b"])
        made = me.rent(seconds=60, idempotency_key="mine")
        assert made.view.listing_id == BY_NAME["c"], "the cheapest was taken meanwhile"
        assert list(market.rented) == ["mine"]
        again = me.rent(BY_NAME["c"], seconds=60, idempotency_key="mine")
        assert again.id == made.id
        market.offered = [one for one in DEVICES if one.listing_id not in market.taken]
        with pytest.raises(Conflict) as refused:
            me.rent(seconds=60, idempotency_key="mine")
        assert refused.value.field == "Idempotency-Key"
        assert list(market.rented) == ["mine"]
