# SPDX-License-Identifier: Apache-2.0
"""What an operator sees of the market: by the tables as they are, and for operators alone."""

from pathlib import Path
from typing import Final

import msgspec
import pytest
from quart.typing import TestClientProtocol as Client

from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.db.database import Database, execute
from qubix_coordinator.deposits.status import ChainState, Look
from qubix_coordinator.http import operation
from qubix_coordinator.jobs import verifiers
from qubix_coordinator.ledger.audit_log import Run
from qubix_coordinator.market import gateways
from qubix_protocol.disputes import DisputeState
from qubix_protocol.operation import Health, OperatorView
from tests.db.disputes_world import DisputesWorld
from tests.db.jobs_world import CAP
from tests.db.support_http import Person, assembled, make_person
from tests.db.test_http_api import ask, problem
from tests.support.own import unchecked

PATH: Final = "/api/v1/operator/overview"
NOW: Final = 1_700_000_000_000


async def seen(client: Client, operator: Person) -> OperatorView:
    answer = await ask(client, "GET", PATH, operator)
    assert answer.status_code == 200
    return msgspec.json.decode(await answer.get_data(), type=OperatorView)


@pytest.mark.asyncio
async def test_an_empty_market_says_what_is_missing_and_what_to_do(db: Database, tmp_path: Path) -> None:
    client = (await assembled(db, tmp_path)).app.test_client()
    found = await seen(client, await make_person(db, Scope.OPERATOR))
    assert not found.ready
    assert found.missing == ("no gateway is connected", "no verifier was heard lately")
    assert {one.health for one in found.processes} == {Health.NEVER}
    assert all(one.remedy for one in found.processes)
    assert (found.queue.jobs, found.audit, found.nodes, found.disputes_open) == ({}, None, (), 0)


@pytest.mark.asyncio
@pytest.mark.parametrize("scope", [None, Scope.USER, Scope.ARBITER, Scope.GATEWAY])
async def test_nobody_else_sees_it(db: Database, tmp_path: Path, scope: Scope | None) -> None:
    client = (await assembled(db, tmp_path)).app.test_client()
    person = await make_person(db, scope) if scope is not None else None
    status, code = (403, "forbidden") if person else (401, "unauthorised")
    await problem(await ask(client, "GET", PATH, person), status, code, "Authorization")


@pytest.mark.asyncio
async def test_it_counts_jobs_processes_providers_disputes_and_money(db: Database, tmp_path: Path) -> None:
    with unchecked.registered():
        world = DisputesWorld(db)
        coordinator = await assembled(db, tmp_path, clock=world.clock, lease_s=10.0, heartbeat_s=2.0)
        world.desk, world.key = coordinator.context.desk, coordinator.context.key
        await world.open()
        node = await world.node()
        delivered = await world.delivered(node)
        dispute = await world.opened(delivered)
        waiting = await world.submit()
        async with db.transaction() as tx:
            await gateways.beat(tx, "gateway-1", ["/ip4/127.0.0.1/tcp/1"])
            await verifiers.beat(tx, "here", 7)
            await execute(tx, "UPDATE engine_clock SET ticked_ms = $1", world.desk.now_ms())
            heard_ms = world.desk.now_ms() + 5_000
            await execute(tx, "UPDATE listing SET offered_ms = $1", heard_ms)
            await execute(
                tx, "UPDATE node SET last_seen_at = to_timestamp($1::bigint / 1000) - interval '1 hour'", heard_ms
            )
        client = coordinator.app.test_client()
        operator = await make_person(db, Scope.OPERATOR)
        assert (await ask(client, "GET", "/api/v1/audit", operator)).status_code == 200
        found = await seen(client, operator)
    assert found.queue.jobs == {"disputed": 1, "queued": 1}
    assert found.queue.oldest_queued_job == waiting.job_id
    health = {one.name: one.health for one in found.processes}
    assert health["Engine of jobs"] is Health.OK
    assert health["Gateway …eway-1"] is Health.OK
    assert health["Verifier here:7"] is Health.OK
    assert found.audit is not None
    assert (found.audit.violations, found.audit.at_ms) == ({}, world.desk.now_ms())
    assert [(one.provider, one.devices, one.online) for one in found.nodes] == [(node.peer, 1, 1)]
    assert found.nodes[0].last_seen_ms == heard_ms, "its newest offer, not its last handshake"
    assert [(one.dispute_id, one.state) for one in found.disputes] == [(dispute.dispute_id, DisputeState.OPENED)]
    assert found.money.held_qu == 2 * CAP


def look(state: ChainState, problem: str = "", checked_ms: int = NOW) -> Look:
    return Look(state, problem, 0, checked_ms, 100, 1, 100, 90)


@pytest.mark.parametrize(
    ("found", "health", "word"),
    [
        (look(ChainState.STARTING, checked_ms=0), Health.NEVER, "never"),
        (look(ChainState.OK), Health.OK, "reads"),
        (look(ChainState.OK, checked_ms=NOW - 60_001), Health.AWAY, "silent"),
        (look(ChainState.BEHIND, "the archive lags"), Health.LATE, "the archive lags"),
        (look(ChainState.UNTRUSTED, "two answers"), Health.LATE, "untrusted: two answers"),
    ],
)
def test_the_chain_process_is_told_by_its_last_look(found: Look, health: Health, word: str) -> None:
    one = operation.chain_process(found, NOW)
    assert one.health is health
    assert word in one.text
    assert bool(one.remedy) == (health is not Health.OK)


@pytest.mark.parametrize(
    ("run", "health", "word"),
    [
        (None, Health.NEVER, "not run"),
        (Run(NOW, 5, {"I1": 0}, {"I8": 0}), Health.OK, "clean"),
        (Run(NOW, 5, {"I1": 2}, {"I8": 1}), Health.LATE, "2 findings"),
        (Run(NOW, 5, {"I1": 0}, {"I8": 1}), Health.LATE, "could not be told"),
        (Run(NOW - operation.AUDIT_LATE_MS - 1, 5, {"I1": 0}, {}), Health.LATE, "older"),
    ],
)
def test_an_audit_is_well_when_it_is_new_and_found_nothing(run: Run | None, health: Health, word: str) -> None:
    one = operation.auditing(run, NOW)
    assert one.health is health
    assert word in one.text


@pytest.mark.parametrize(
    ("ticked_ms", "health"),
    [(0, Health.NEVER), (NOW, Health.OK), (NOW - 5_000, Health.OK), (NOW - 5_001, Health.LATE)],
)
def test_an_engine_is_late_when_it_has_not_ticked_for_seconds(ticked_ms: int, health: Health) -> None:
    assert operation.ticking("Engine", ticked_ms, NOW).health is health
