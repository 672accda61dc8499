# SPDX-License-Identifier: Apache-2.0
"""What owners want of their devices: whose word counts, what the node is told, and what it answers."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from quart.typing import TestClientProtocol as Client

from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.db.database import Database, execute, rows
from qubix_coordinator.wishes import rules
from qubix_coordinator.wishes import service as wishes
from qubix_coordinator.wishes.rules import Wish
from qubix_protocol.wishes import (
    DeviceWish,
    DeviceWishBody,
    DeviceWishTaken,
    ProviderDevicesView,
    ProviderDeviceView,
    WishState,
)
from tests.db.jobs_world import Node, World
from tests.db.support_http import Person, assembled, make_person
from tests.db.test_http_api import ask, problem
from tests.db.test_http_disputes import token_for
from tests.db.test_wallets_service import until_waiting

API = "/api/v1/provider/devices"
NOW = 1_700_000_000_000


@dataclass
class Owned:
    """A node in the market, and the account that it works for."""

    world: World
    client: Client
    node: Node
    owner: Person

    async def devices(self, person: Person | None = None) -> ProviderDevicesView:
        answer = await ask(self.client, "GET", API, person or self.owner)
        return msgspec.json.decode(await answer.get_data(), type=ProviderDevicesView)

    async def one(self) -> ProviderDeviceView:
        (found,) = (await self.devices()).devices
        return found

    async def wish(self, **body: Any) -> ProviderDeviceView:
        answer = await ask(self.client, "PATCH", f"{API}/{(await self.one()).listing_id}", self.owner, json=body)
        assert answer.status_code == 202, await answer.get_data()
        return msgspec.json.decode(await answer.get_data(), type=ProviderDeviceView)

    async def told(self) -> list[DeviceWish]:
        """All that the node was told of wishes so far, in order."""
        async with self.world.db.transaction() as tx:
            found = await rows(
                tx, "SELECT payload FROM event WHERE topic = $1 ORDER BY xid, id", f"node:{self.node.peer}"
            )
        payloads = [
            msgspec.json.decode(one["payload"]) if isinstance(one["payload"], str) else one["payload"] for one in found
        ]
        return [msgspec.convert(one, DeviceWish) for one in payloads if one["t"] == "device_wish"]

    async def answers(self, revision: int, problem: str = "") -> None:
        device = (await self.one()).device_id
        said = DeviceWishTaken(device_id=device, revision=revision, problem=problem, rate_qu_per_h=1)
        await wishes.on_taken(self.world.db, self.node.peer, said, now_ms=self.world.desk.now_ms())


@pytest_asyncio.fixture
async def owned(db: Database, tmp_path: Path) -> Owned:
    world = World(db)
    coordinator = await assembled(db, tmp_path, clock=world.clock)
    world.desk, world.key = coordinator.context.desk, coordinator.context.key
    await world.open()
    node = await world.node()
    async with db.transaction() as tx:
        (row,) = await rows(tx, "SELECT account_id FROM node WHERE peer_id = $1", node.peer)
    return Owned(world, coordinator.app.test_client(), node, await token_for(db, row["account_id"]))


@pytest.mark.asyncio
async def test_a_wish_is_told_to_the_node_and_done_when_it_says_so(owned: Owned) -> None:
    assert (await owned.one()).wish is None
    view = await owned.wish(rate_qu_per_h=777)
    assert view.wish is not None
    assert (view.wish.state, view.wish.rate_qu_per_h, view.wish.answered_ms) == (WishState.WAITING, 777, None)
    assert [(one.revision, one.rate_qu_per_h, one.paused) for one in await owned.told()] == [(1, 777, False)]
    await owned.answers(1)
    done = (await owned.one()).wish
    assert done is not None
    assert (done.state, done.answered_ms) == (WishState.DONE, owned.world.desk.now_ms())
    # What the market shows is what the node's offers say, and nothing else.
    assert (await owned.one()).rate_qu_per_h == view.rate_qu_per_h != 777


@pytest.mark.asyncio
async def test_wishes_add_up_and_an_answer_to_an_old_one_says_nothing_of_the_new_one(owned: Owned) -> None:
    await owned.wish(rate_qu_per_h=777)
    await owned.wish(paused=True)
    await owned.answers(1)
    waiting = (await owned.one()).wish
    assert waiting is not None
    assert waiting.state is WishState.WAITING
    await owned.answers(2, "this node has no such device now")
    refused = (await owned.one()).wish
    assert refused is not None
    assert (refused.state, refused.rate_qu_per_h, refused.paused) == (WishState.REFUSED, 777, True)
    assert "no such device" in refused.problem
    again = await owned.wish(paused=True)
    assert again.wish == refused, "what is so already is no news"
    third = await owned.wish(free_in_s=900, why="a new fan")
    assert third.wish is not None
    assert (third.wish.state, third.wish.problem) == (WishState.WAITING, "")
    told = await owned.told()
    assert [(one.revision, one.free_ms) for one in told] == [
        (1, None),
        (2, None),
        (3, owned.world.desk.now_ms() + 900_000),
    ]


@pytest.mark.asyncio
async def test_it_is_told_again_after_a_handshake_and_until_it_is_answered(owned: Owned) -> None:
    await owned.wish(rate_qu_per_h=777)
    async with owned.world.db.transaction() as tx:
        await wishes.remind(tx, now_ms=owned.world.desk.now_ms())
    await owned.answers(1)
    async with owned.world.db.transaction() as tx:
        await wishes.remind(tx, now_ms=owned.world.desk.now_ms())
    assert len(await owned.told()) == 2
    await wishes.on_hello(owned.world.db, owned.node.peer)
    assert [one.revision for one in await owned.told()] == [1, 1, 1]


@pytest.mark.asyncio
async def test_what_was_refused_is_told_again_after_a_while_that_grows(owned: Owned) -> None:
    """Until the node can do it, or its owner wishes something else; the reason stands there meanwhile."""

    async def minutes_until_told(most: int) -> int | None:
        before = len(await owned.told())
        for minute in range(1, most + 1):
            owned.world.clock.advance(60)
            await owned.node.offer()
            async with owned.world.db.transaction() as tx:
                await wishes.remind(tx, now_ms=owned.world.desk.now_ms())
            if len(await owned.told()) > before:
                return minute
        return None

    await owned.wish(rate_qu_per_h=777)
    waits = []
    for _ in range(4):
        await owned.answers(1, "this node cannot write to its folder")
        waits.append(await minutes_until_told(10))
    assert waits == [1, 2, 4, 8]
    assert await minutes_until_told(10) == 8, "it said nothing this time"
    wish = (await owned.one()).wish
    assert wish is not None
    assert (wish.state, wish.problem) == (WishState.REFUSED, "this node cannot write to its folder")
    await owned.answers(1)
    done = (await owned.one()).wish
    assert done is not None
    assert done.state is WishState.DONE
    assert await minutes_until_told(20) is None


@pytest.mark.asyncio
async def test_a_wish_that_is_changed_meanwhile_is_told_by_who_changes_it(owned: Owned) -> None:
    await owned.wish(rate_qu_per_h=777)
    await owned.answers(1, "this node cannot write to its folder")
    owned.world.clock.advance(60)
    await owned.node.offer()
    db, now_ms, told = owned.world.db, owned.world.desk.now_ms(), len(await owned.told())
    async with asyncio.TaskGroup() as tasks, db.transaction() as tx:
        await execute(tx, "UPDATE device_wish SET revision = 2, problem = '', refusals = 0, again_ms = NULL")
        reminded = tasks.create_task(db.run(lambda other: wishes.remind(other, now_ms=now_ms)))
        waiting = tasks.create_task(until_waiting(db))
        done, _ = await asyncio.wait({reminded, waiting}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert done
        waiting.cancel()
    assert len(await owned.told()) == told


@pytest.mark.asyncio
async def test_a_tab_is_set_on_its_own_page(owned: Owned) -> None:
    async with owned.world.db.transaction() as tx:
        await execute(tx, "UPDATE listing SET kind = 'webgpu', browser = true")
    found = await owned.one()
    assert found.browser
    answer = await ask(owned.client, "PATCH", f"{API}/{found.listing_id}", owned.owner, json={"paused": True})
    await problem(answer, 409, "conflict", "listing_id")
    assert await owned.told() == []


@pytest.mark.asyncio
async def test_only_the_owner_s_account_may_say_so(owned: Owned) -> None:
    listing = (await owned.one()).listing_id
    stranger = await make_person(owned.world.db)
    operator = await make_person(owned.world.db, Scope.USER, Scope.OPERATOR)
    assert (await owned.devices(stranger)).devices == ()
    for person in (stranger, operator):
        answer = await ask(owned.client, "PATCH", f"{API}/{listing}", person, json={"paused": True})
        await problem(answer, 403, "forbidden", "listing_id")
    await problem(
        await ask(owned.client, "PATCH", f"{API}/{listing}", None, json={"paused": True}),
        401,
        "unauthorised",
        "Authorization",
    )
    nobodys = "00000000-0000-4000-8000-000000000001"
    answer = await ask(owned.client, "PATCH", f"{API}/{nobodys}", owned.owner, json={"paused": True})
    await problem(answer, 404, "not_found", "listing_id")
    assert await owned.told() == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"rate_qu_per_h": -1},
        {"rate_qu_per_h": 1.5},
        {"paused": None},
        {"free_in_s": -1},
        {"why": "x" * 201},
        {"rate": 5},
    ],
)
async def test_what_makes_no_sense_is_refused(owned: Owned, body: dict[str, Any]) -> None:
    answer = await ask(owned.client, "PATCH", f"{API}/{(await owned.one()).listing_id}", owned.owner, json=body)
    await problem(answer, 422, "invalid_input")
    assert await owned.told() == []


@pytest.mark.parametrize(
    ("before", "body", "after"),
    [
        (Wish(), {"rate_qu_per_h": 5}, Wish(rate_qu_per_h=5)),
        (Wish(rate_qu_per_h=5), {"rate_qu_per_h": None}, Wish()),
        (Wish(rate_qu_per_h=5), {"paused": True}, Wish(rate_qu_per_h=5, paused=True)),
        (Wish(), {"free_in_s": 60, "why": "fan"}, Wish(free_ms=NOW + 60_000, why="fan")),
        (Wish(free_ms=NOW, why="fan"), {"free_in_s": None}, Wish()),
        (Wish(free_ms=NOW, why="fan"), {"why": "heat"}, Wish(free_ms=NOW, why="heat")),
    ],
)
def test_a_request_changes_what_it_names(before: Wish, body: dict[str, Any], after: Wish) -> None:
    assert rules.changed(before, DeviceWishBody(**body), NOW) == after


@pytest.mark.parametrize(
    ("taken", "said", "online", "state"),
    [
        (None, "", True, WishState.WAITING),
        (None, "", False, WishState.AWAY),
        (1, "", True, WishState.WAITING),
        (2, "", True, WishState.DONE),
        (2, "", False, WishState.DONE),
        (2, "no", True, WishState.REFUSED),
    ],
)
def test_it_is_done_when_the_node_has_said_so_of_this_one(
    taken: int | None, said: str, online: bool, state: WishState
) -> None:
    assert rules.state(2, taken, said, online=online) is state
