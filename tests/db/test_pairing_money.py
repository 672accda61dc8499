# SPDX-License-Identifier: Apache-2.0
"""Who is paid for a node's work, before, while and after it becomes a person's: each settlement once, to whose the node
is when it is posted; nothing else moves (docs/adr/0034)."""

from uuid import UUID

import pytest

from qubix_coordinator.accounts import pairings
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database, Tx
from qubix_protocol.pairing import PairingView, fingerprint
from tests.db.jobs_world import CREDIT, UNITS, Node, World
from tests.db.support_http import Person, make_person

pytestmark = pytest.mark.asyncio


async def _join(world: World, node: Node, person: Person) -> None:
    async def step(tx: Tx) -> PairingView | Exception:
        now_ms = world.desk.now_ms()
        code, made = await pairings.make(tx, person.account_id, "desk", now_ms=now_ms)
        await pairings.brought(tx, node.peer, code, now_ms=now_ms)
        shown = fingerprint(node.key.public)
        return await pairings.confirm(tx, person.account_id, UUID(made.pairing_id), shown, now_ms=now_ms)

    found = await world.db.run(step)
    assert isinstance(found, PairingView)
    assert found.state == "confirmed"


async def test_what_was_earned_stays_and_what_comes_is_the_persons(db: Database) -> None:
    world = await World(db).open()
    node, person = await world.node(), await make_person(db)
    async with db.transaction() as tx:
        own = await accounts.account_of_node(tx, node.peer)
    first = await world.assigned()
    await node.whole_job()
    await world.check()
    before = await world.balance_qu(own)
    assert before == (await world.job(first.job_id)).paid_qu > 0

    second = await world.assigned()
    await node.accept()
    await node.work(0, UNITS // 2)
    await _join(world, node, person)
    await node.work(UNITS // 2, UNITS)
    await node.report()
    await world.check()
    paid = (await world.job(second.job_id)).paid_qu
    assert paid > 0
    assert await world.balance_qu(person.account_id) == paid
    assert await world.balance_qu(own) == before

    third = await world.assigned()
    await node.whole_job()
    await world.check()
    last = await world.job(third.job_id)
    assert await world.balance_qu(person.account_id) == paid + last.paid_qu
    assert await world.balance_qu(own) == before
    spent = sum(one.paid_qu + one.fee_qu for one in [await world.job(view.job_id) for view in (first, second, third)])
    assert await world.balance_qu(world.consumer.account_id) == CREDIT - spent
    await world.check_money()
