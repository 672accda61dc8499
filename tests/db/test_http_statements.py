# SPDX-License-Identifier: Apache-2.0
"""Links and reports that come by HTTPS: durable and acknowledged as over the mesh, believed no sooner."""

from pathlib import Path
from typing import Any

import pytest

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.app import Coordinator, assemble
from qubix_coordinator.db.database import Database
from qubix_coordinator.settings import Settings
from qubix_protocol import envelope
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Acknowledged, Heartbeat, Link, Message, Progress, Report
from qubix_protocol.states import JobState, Outcome
from tests.db.jobs_world import UNITS, Node, World
from tests.db.support_http import TEST_URL

pytestmark = pytest.mark.asyncio
PATH = "/api/v1/nodes/statements"


class Way:
    """One node's way by HTTPS to a coordinator, in the session that it has."""

    def __init__(self, coordinator: Coordinator, node: Node, session: int) -> None:
        self._coordinator, self._node, self._session, self._counter = coordinator, node, session, 0

    def seal(self, message: Message, key: SigningKey | None = None, **changed: Any) -> bytes:
        self._counter += 1
        how: dict[str, Any] = {
            "network": "devnet",
            "audience": self._coordinator.context.key.public,
            "incarnation": self._session,
            "counter": self._counter,
            "expires_ms": self._coordinator.context.now_ms() + 30_000,
        }
        return envelope.seal(message, key or self._node.key, **{**how, **changed})

    async def bring(self, raw: bytes, media: str = "application/msgpack") -> Any:
        return await self._coordinator.app.test_client().post(PATH, data=raw, headers={"Content-Type": media})

    async def acknowledged(self, message: Message) -> Acknowledged:
        """As the node judges the answer."""
        response = await self.bring(self.seal(message))
        assert response.status_code == 200, await response.get_data()
        context = self._coordinator.context
        opened = envelope.open_envelope(
            await response.get_data(),
            network="devnet",
            audience=self._node.key.public,
            now_ms=context.now_ms(),
            sender=context.key.public,
        )
        assert opened.sequence == (self._session, self._counter)
        return opened.body(Acknowledged)

    async def refused(self, raw: bytes, status: int, code: str, **how: str) -> None:
        response = await self.bring(raw, **how)
        assert (response.status_code, (await response.get_json())["code"]) == (status, code)


async def at_work(db: Database, folder: Path) -> tuple[World, Node, Way]:
    world = await World(db).open()
    coordinator = await assemble(db, Settings(data_dir=folder), TEST_URL, world.clock)
    node = await world.node()
    await world.assigned()
    await node.accept()
    session = await db.run(lambda tx: accounts.next_incarnation(tx, node.peer))
    return world, node, Way(coordinator, node, session)


async def progress(node: Node, link: Link | None) -> Progress:
    attempt = await node.attempt()
    return Progress(attempt_id=str(attempt.id), fence=attempt.fence, fraction=0.5, elapsed_ms=1, link=link)


async def report(world: World, node: Node, links: int) -> Report:
    attempt = await node.attempt()
    job = await world.row(attempt.job_id)
    return Report(
        job_id=str(job.id),
        attempt_id=str(attempt.id),
        fence=attempt.fence,
        outcome=Outcome.COMPLETED,
        kernel=job.kernel,
        params_digest=bytes(job.params_digest),
        inputs_digest=bytes(job.inputs_digest),
        links=links,
        units_done=attempt.units_done,
        head=bytes(attempt.head),
        claimed_ms=attempt.claimed_ms,
        started_ms=0,
        finished_ms=1,
        backend=attempt.backend,
        device_id=attempt.device_id,
    )


async def test_a_link_and_a_report_that_come_by_https_are_paid_like_any(db: Database, tmp_path: Path) -> None:
    world, node, way = await at_work(db, tmp_path)
    world.clock.advance(1)
    link = node.next_link(0, UNITS, 1_000)
    await node.upload(link)
    said = await progress(node, link)
    for _ in range(2):  # a lost answer: brought again, it is one link
        assert await way.acknowledged(said) == Acknowledged(attempt_id=said.attempt_id, fence=said.fence, link=0)
    assert await node.send(link) is not None, "and over the mesh it is known"
    last = await report(world, node, 1)
    for _ in range(2):
        assert await way.acknowledged(last) == Acknowledged(attempt_id=said.attempt_id, fence=said.fence)
    assert (await world.db.fetch("SELECT count(*) AS links FROM link"))[0]["links"] == 1
    await world.check()
    job = await world.job(last.job_id)
    assert (job.state, job.units_accepted) == (JobState.SETTLED, UNITS)
    assert await node.earned_qu() == job.paid_qu > 0
    (receipt,) = await world.db.fetch("SELECT report_raw FROM attempt")
    kept = envelope.read_evidence(bytes(receipt["report_raw"]), network="devnet", sender=node.key.public)
    assert kept.body(Report) == last, "the receipt holds what was brought"


async def test_what_is_not_to_be_believed_is_refused_and_changes_nothing(db: Database, tmp_path: Path) -> None:
    world, node, way = await at_work(db, tmp_path)
    link = node.next_link(0, UNITS, 1_000)
    await node.upload(link)
    said = await progress(node, link)
    await way.refused(way.seal(said, incarnation=7), 401, "replayed")
    await way.refused(way.seal(said, key=SigningKey.generate()), 404, "not_found")
    await way.refused(way.seal(said, audience=envelope.ANYONE), 401, "wrong_audience")
    await way.refused(way.seal(said, expires_ms=1), 401, "expired")
    await way.refused(way.seal(said, network="test"), 401, "wrong_network")
    await way.refused(way.seal(Heartbeat()), 400, "malformed")
    await way.refused(way.seal(await progress(node, None)), 400, "malformed")
    await way.refused(b"\xc1", 400, "malformed")
    await way.refused(way.seal(said), 415, "wrong_media", media="application/json")
    await way.refused(bytes(300_000), 413, "too_large")
    assert await world.db.fetch("SELECT FROM link") == []
    once = way.seal(said)
    assert (await way.bring(once)).status_code == 200
    await way.refused(once, 401, "replayed")


async def test_the_link_of_an_attempt_that_is_over_is_kept_and_not_acknowledged(db: Database, tmp_path: Path) -> None:
    world, node, way = await at_work(db, tmp_path)
    link = node.next_link(0, UNITS, 1_000)
    await node.upload(link)
    said = await progress(node, link)
    await world.cancel(str((await node.attempt()).job_id))
    await way.refused(way.seal(said), 409, "stale_attempt")
    assert [row["kind"] for row in await world.db.fetch("SELECT kind FROM evidence")] == ["progress"]
    assert await node.earned_qu() == 0
