# SPDX-License-Identifier: Apache-2.0
"""Renting several devices of one node: which are asked for, under which key, and what the person agrees to."""

import json
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from qubix.cli import main
from qubix.client import Client
from qubix.errors import BadUsage, Conflict
from qubix.settings import Settings
from qubix_protocol.api import ListingView, OffersView
from qubix_protocol.envelope import open_envelope
from qubix_protocol.messages import RentOrder
from qubix_protocol.rentals import RentalBody, RentalGroupView, RentalView
from qubix_protocol.states import Availability, RentalState
from tests.support.fake_api import TOKEN, FakeApi, Refusal, Seen, listing, now_ms
from tests.unit.test_sdk_rental import view_of

GROUP = "00000000-0000-0000-0000-0000000000aa"


def device(node: str, number: int, rate: int) -> ListingView:
    one = listing(node, rate)
    key = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{node}/{number}"))
    return msgspec.structs.replace(one, listing_id=key, device_id=f"GPU-{number}", model="A card")


OFFERS = [
    *(device("a", number, rate) for number, rate in enumerate((100, 300, 200))),
    *(device("b", number, 150) for number in range(2)),
    device("c", 0, 10),
]


class Market(FakeApi):
    """Answers with the group of what was asked for; nodes in `full` have been rented meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.offered, self.full = list(OFFERS), set[str]()
        self.bodies: list[tuple[str, RentalBody]] = []
        self.signed: list[RentOrder] = []
        self.stopped = False

    def _get_offers(self, seen: Seen, listing_id: str = "", what: str = "") -> tuple[int, Any]:
        return 200, OffersView(offers=tuple(self.offered), cursor="0.0")

    def _post_rentals(self, seen: Seen, rental_id: str = "", action: str = "") -> tuple[int, Any]:
        body = msgspec.json.decode(seen.body, type=RentalBody)
        self.bodies.append((seen.headers["idempotency-key"], body))
        opened = open_envelope(bytes.fromhex(body.order), network="devnet", audience=self.key.public, now_ms=now_ms())
        self.signed.append(opened.body(RentOrder))
        node = next(one.provider for one in self.offered if one.listing_id == body.listing_id)
        if node in self.full:
            raise Refusal(409, "conflict", "1 of the 2 devices alike", field="count")
        return 201, self._members()[0]

    def _members(self) -> list[RentalView]:
        _, body = self.bodies[-1]
        first = msgspec.structs.replace(view_of(body), group_id=GROUP)
        if self.stopped:
            first = msgspec.structs.replace(first, state=RentalState.ENDED)
        return [
            msgspec.structs.replace(first, rental_id=str(uuid.UUID(int=number + 1)))
            for number in range(max(body.count, 1 + len(body.more)))
        ]

    def _get_rentals(self, seen: Seen, rental_id: str) -> tuple[int, Any]:
        return 200, next(one for one in self._members() if one.rental_id == rental_id)

    def answer(self, seen: Seen) -> tuple[int, Any]:
        if "/rental-groups/" not in seen.path:
            return super().answer(seen)
        assert GROUP in seen.path
        self.stopped = self.stopped or seen.path.endswith("/stop")
        rentals = self._members()
        return 200, RentalGroupView(
            group_id=GROUP,
            provider="a",
            rentals=tuple(rentals),
            over=self.stopped,
            hold_qu=sum(one.hold_qu for one in rentals),
            held_qu=2,
            paid_qu=0,
            fee_qu=0,
            returned_qu=0,
            billed_ms=0,
            owed_qu=0,
        )


@pytest.fixture
def world(tmp_path: Path) -> Any:
    with (
        Market() as market,
        Client(settings=Settings(coordinator_url=market.url, token=TOKEN, data_dir=tmp_path)) as me,
    ):
        yield market, me


def test_the_cheapest_so_many_alike_are_asked_for_and_signed(world: tuple[Market, Client]) -> None:
    market, me = world
    made = me.rent_group(count=2, seconds=60, idempotency_key="mine")
    ((key, body),) = market.bodies
    # 2 × 150 and 100 + 200 cost the same; which comes first is settled by the listing's id.
    node = next(one.provider for one in OFFERS if one.listing_id == body.listing_id)
    assert node in ("a", "b")
    assert (key, body.count, body.more) == ("mine", 2, ())
    assert body.rate_qu_per_h_max == (200 if node == "a" else 150)
    signed = market.signed[0]
    assert (signed.listing_id, signed.count, signed.rate_qu_per_h_max) == (
        body.listing_id,
        body.count,
        body.rate_qu_per_h_max,
    )
    assert (made.id, len(made.rentals), made.over) == (GROUP, 2, False)
    assert made.stop().over
    assert all(one.over for one in made.rentals)


def test_a_node_that_is_full_by_now_is_passed_over_under_the_same_key(world: tuple[Market, Client]) -> None:
    market, me = world
    market.full = {"a"}
    market.offered = [one if one.provider != "b" else msgspec.structs.replace(one, rate_qu_per_h=900) for one in OFFERS]
    me.rent_group(count=2, seconds=60, idempotency_key="mine")
    assert [(key, body.rate_qu_per_h_max) for key, body in market.bodies] == [("mine", 200), ("mine", 900)]
    market.full = {"a", "b"}
    with pytest.raises(Conflict):
        me.rent_group(count=2, seconds=60)


def test_named_ones_are_asked_for_by_name(world: tuple[Market, Client]) -> None:
    market, me = world
    names = [OFFERS[1].listing_id, OFFERS[0].listing_id]
    me.rent_group(names, seconds=60, cap_qu=9)
    ((_, body),) = market.bodies
    assert (body.listing_id, list(body.more), body.count) == (names[0], names[1:], 1)
    assert (body.rate_qu_per_h_max, body.cap_qu) == (300, 9)
    assert list(market.signed[0].more) == names[1:]


def test_what_is_no_group_is_refused_here(world: tuple[Market, Client]) -> None:
    market, me = world
    with pytest.raises(BadUsage, match="the most is 3"):
        me.rent_group(count=4, seconds=60)
    with pytest.raises(BadUsage, match="the most is 2"):
        me.rent_group(count=3, seconds=60, rate_qu_per_h_max=250)
    for wrong in ({"count": 1}, {}, {"listings": [OFFERS[0].listing_id]}, {"listings": ["x", "y"], "count": 2}):
        with pytest.raises(BadUsage):
            me.rent_group(seconds=60, **wrong)  # type: ignore[arg-type]
    market.offered = [msgspec.structs.replace(one, availability=Availability.BUSY) for one in OFFERS]
    with pytest.raises(BadUsage, match="the most is 0"):
        me.rent_group(count=2, seconds=60)
    assert market.bodies == []


def test_the_command_shows_the_price_of_all_and_rents_what_it_showed(tmp_path: Path) -> None:
    with Market() as market:
        env = {"QUBIX_COORDINATOR_URL": market.url, "QUBIX_TOKEN": TOKEN, "QUBIX_DATA_DIR": str(tmp_path)}

        def qubix(*words: str, said: str = "") -> Any:
            return CliRunner().invoke(main, list(words), env=env, input=said)

        market.offered = OFFERS[:3]
        refused = qubix("rent", "start", "3600", "--count", "2", said="n\n")
        assert (refused.exit_code != 0, market.bodies) == (True, [])
        assert "2 devices of one node" in refused.output
        assert "300 QU an hour: at most 300 QU" in refused.output
        made = qubix("rent", "start", "3600", "--count", "2", "--yes", "--json")
        assert json.loads(made.output)["group_id"] == GROUP
        ((_, body),) = market.bodies
        assert [body.listing_id, *body.more] == [OFFERS[0].listing_id, OFFERS[2].listing_id]
        first = str(uuid.UUID(int=1))
        assert GROUP in qubix("rent", "show", first, "--group").output
        assert json.loads(qubix("rent", "stop", first, "--group", "--json").output)["over"]
        assert market.stopped
        assert qubix("rent", "start", "3600", "--count", "2", "--listing", OFFERS[0].listing_id).exit_code == 2
