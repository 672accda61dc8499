# SPDX-License-Identifier: Apache-2.0
"""Settlements told again to a node that was away: its own, each as it was signed, from a place on, page by page."""

import pytest

from qubix_coordinator.db.database import Database
from qubix_coordinator.jobs import retold
from qubix_coordinator.jobs import service as jobs
from qubix_protocol import envelope
from qubix_protocol.messages import Settlement, Settlements, SettlementsAsk
from qubix_protocol.units import SETTLEMENTS_MAX
from tests.db.jobs_world import Node, World

OVERLAP_S = retold.OVERLAP_MS / 1000
pytestmark = pytest.mark.asyncio


async def settled(world: World, node: Node) -> str:
    """Another job, done by the node, checked and paid; its attempt."""
    await world.assigned()
    await node.accept()
    await node.work(0, 100)
    await node.report()
    await world.check()
    return str((await node.attempt()).id)


async def asked(world: World, node: Node, after: Settlements | None = None) -> Settlements:
    place = SettlementsAsk(after_ms=after.next_ms, after=after.next) if after else SettlementsAsk(after_ms=0, after="")
    return await jobs.on_settlements_ask(world.desk, node.peer, place)


def attempts(world: World, told: Settlements) -> list[tuple[str, int]]:
    """By the coordinator's own signature."""
    opened = [envelope.read_evidence(raw, network="devnet", sender=world.desk.key.public) for raw in told.told]
    bodies = [one.body(Settlement) for one in opened]
    return [(one.attempt_id, one.paid_qu) for one in bodies]


async def test_what_was_settled_while_a_node_was_away_is_told_again_to_it_alone(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    first = await settled(world, node)
    told = await asked(world, node)
    ((attempt_id, paid_qu),) = attempts(world, told)
    assert attempt_id == first
    assert paid_qu == await node.earned_qu() > 0
    assert told.more is False
    assert (await asked(world, await world.node())).told == ()
    await world.pass_time(OVERLAP_S, step_s=OVERLAP_S)
    second = await settled(world, node)
    # The place is a while before the answer: what may not have been visible then is told, once too often at worst.
    assert [one for one, _ in attempts(world, await asked(world, node, told))] == [first, second]
    await world.pass_time(2 * OVERLAP_S, step_s=OVERLAP_S)
    late = await asked(world, node, await asked(world, node, told))
    assert (late.told, late.more) == ((), False)


async def test_many_are_told_page_by_page_each_once(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    done = [await settled(world, node) for _ in range(3)]
    page = retold.page(await _rows(db), SettlementsAsk(after_ms=0, after=""), now_ms=world.desk.now_ms())
    assert [one for one, _ in attempts(world, page)] == done
    many = [row for row in await _rows(db) for _ in range(SETTLEMENTS_MAX)][: SETTLEMENTS_MAX + 1]
    page = retold.page(many, SettlementsAsk(after_ms=0, after=""), now_ms=world.desk.now_ms())
    assert (len(page.told), page.more) == (SETTLEMENTS_MAX, True)
    after = await jobs.on_settlements_ask(world.desk, node.peer, SettlementsAsk(after_ms=page.next_ms, after=page.next))
    assert [one for one, _ in attempts(world, after)] == done[1:]


async def test_a_place_ahead_of_the_clock_stays(db: Database) -> None:
    world = await World(db).open()
    asked_for = SettlementsAsk(after_ms=world.desk.now_ms() + 10_000, after="")
    assert retold.page([], asked_for, now_ms=world.desk.now_ms()).next_ms == asked_for.after_ms


async def _rows(db: Database) -> list[dict[str, object]]:
    return await db.fetch(
        "SELECT id, settled_ms, settlement_raw FROM attempt WHERE settled_ms IS NOT NULL ORDER BY settled_ms, id"
    )
