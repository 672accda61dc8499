# SPDX-License-Identifier: Apache-2.0
"""Disputes and acceptance over HTTP: who may ask what, what is refused and why, and what whoever watches is told."""

import dataclasses
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import pytest_asyncio
from quart.typing import TestClientProtocol as Client

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.db.database import Database
from qubix_protocol.api import JobCourseView, JobView, SettleView
from qubix_protocol.disputes import DisputeState, DisputesView, DisputeView, JobDisputesView, Outcome, Side
from qubix_protocol.states import JobState
from qubix_protocol.units import QU_MAX
from tests.db.disputes_world import DisputesWorld
from tests.db.jobs_world import CAP, CREDIT, Node
from tests.db.support_http import Person, assembled, make_person, served
from tests.db.test_http_api import ask, problem
from tests.db.test_live_feed import feed_of
from tests.db.unchecked_world import OWED, WINDOW_S
from tests.support.own import unchecked

pytestmark = pytest.mark.asyncio
API = "/api/v1"
NOBODYS = "00000000-0000-4000-8000-000000000001"
WORDS = {"statement": "the numbers are made up"}
T = TypeVar("T")


@pytest.fixture(autouse=True)
def with_orbit() -> Iterator[None]:
    with unchecked.registered():
        yield


@dataclasses.dataclass
class Court:
    """A market with one delivered job that nobody has checked, and everybody who may have a say about it."""

    world: DisputesWorld
    client: Client
    node: Node
    job: JobView
    consumer: Person
    provider: Person
    stranger: Person
    arbiter: Person

    async def answer_of(
        self, kind: type[T], method: str, path: str, person: Person, status: int = 200, **more: Any
    ) -> T:
        response = await ask(self.client, method, API + path, person, **more)
        body = await response.get_data()
        assert response.status_code == status, body
        return msgspec.json.decode(body, type=kind)

    async def refused(
        self, method: str, path: str, person: Person | None, status: int, code: str, field: str | None, **more: Any
    ) -> str:
        """The words and the remedy."""
        told = await problem(await ask(self.client, method, API + path, person, **more), status, code, field)
        return f"{told.detail} {told.remedy}"

    async def open(self, person: Person | None = None, **changes: Any) -> DisputeView:
        body = {"job_id": self.job.job_id, **WORDS, **changes}
        return await self.answer_of(DisputeView, "POST", "/disputes", person or self.consumer, 201, json=body)

    async def get(self, dispute: DisputeView, person: Person | None = None) -> DisputeView:
        return await self.answer_of(DisputeView, "GET", f"/disputes/{dispute.dispute_id}", person or self.consumer)

    async def judging(self) -> DisputeView:
        """Answered, and nobody could run it again: an arbiter may decide."""
        dispute = await self.open()
        path = f"/disputes/{dispute.dispute_id}/answer"
        await self.answer_of(DisputeView, "POST", path, self.provider, json=WORDS)
        await self.world.later(self.world.desk.settings.dispute_rerun_s)
        found = await self.get(dispute)
        assert found.state is DisputeState.JUDGING
        return found


async def token_for(db: Database, account_id: uuid.UUID, *scopes: Scope) -> Person:
    async with db.transaction() as tx:
        return Person(account_id, await accounts.create_token(tx, account_id, scopes or (Scope.USER,)))


async def court_of(db: Database, folder: Path, **settings: Any) -> Court:
    world = DisputesWorld(db)
    coordinator = await assembled(db, folder, clock=world.clock, lease_s=10.0, heartbeat_s=2.0, **settings)
    world.desk, world.key = coordinator.context.desk, coordinator.context.key
    await world.open()
    node = await world.node()
    return Court(
        world=world,
        client=coordinator.app.test_client(),
        node=node,
        job=await world.delivered(node),
        consumer=await token_for(db, world.consumer.account_id),
        provider=await token_for(db, (await world.provider(node)).account_id),
        stranger=await make_person(db),
        arbiter=await make_person(db, Scope.ARBITER, name="judge"),
    )


@pytest_asyncio.fixture
async def court(db: Database, tmp_path: Path) -> Court:
    return await court_of(db, tmp_path)


async def test_a_dispute_from_its_opening_to_an_arbiters_word(court: Court) -> None:
    dispute = await court.open(digests=["ab" * 32])
    assert (dispute.state, dispute.opened_by, dispute.you) == (DisputeState.OPENED, Side.CONSUMER, "consumer")
    assert (dispute.stake_qu, dispute.job_id) == (OWED, court.job.job_id)
    path = f"/disputes/{dispute.dispute_id}"
    theirs = await court.get(dispute, court.provider)
    judge = await court.answer_of(DisputeView, "GET", f"/arbiter{path}", court.arbiter)
    assert [one.you for one in (theirs, judge)] == ["provider", "arbiter"]
    assert theirs.steps == judge.steps == dispute.steps
    assert theirs.evidence == judge.evidence == dispute.evidence
    said = {"statement": "look at row 3", "digests": ["cd" * 32]}
    await court.answer_of(DisputeView, "POST", f"{path}/evidence", court.consumer, json=said)
    answered = await court.answer_of(DisputeView, "POST", f"{path}/answer", court.provider, json=WORDS)
    assert answered.state is DisputeState.RERUNNING
    await court.world.later(court.world.desk.settings.dispute_rerun_s)
    verdict = {"award_qu": 4_000, "reason": "row 3 is wrong"}
    done = await court.answer_of(DisputeView, "POST", f"/arbiter{path}/decide", court.arbiter, json=verdict)
    assert (done.outcome, done.award_qu, done.awarded_from) == (Outcome.DECIDED, 4_000, {"hold": 4_000})
    seen = await court.get(dispute)
    assert [(one.by, one.what) for one in seen.steps] == [
        ("consumer", "opened"),
        ("consumer", "statement"),
        ("provider", "answered"),
        ("market", "rerunning"),
        ("market", "judging"),
        ("arbiter", "vote"),
        ("market", "decided"),
    ]
    assert [one.digests for one in seen.steps[:2]] == [("ab" * 32,), ("cd" * 32,)]
    job = await court.answer_of(JobView, "GET", f"/jobs/{court.job.job_id}", court.consumer)
    assert (job.state, job.paid_qu + job.fee_qu, job.returned_qu) == (JobState.RESOLVED, 6_000, CAP - 6_000)
    await court.world.clean()


async def test_a_decision_that_comes_twice_counts_once(court: Court) -> None:
    """Its answer may get lost, and clients then ask again."""
    dispute = await court.judging()
    path = f"/arbiter/disputes/{dispute.dispute_id}/decide"
    verdict = {"award_qu": 0, "reason": "it is right"}
    first = await court.answer_of(DisputeView, "POST", path, court.arbiter, json=verdict)
    again = await court.answer_of(DisputeView, "POST", path, court.arbiter, json=verdict)
    assert (again.revision, again.steps, again.outcome) == (first.revision, first.steps, Outcome.DECIDED)
    other = {"award_qu": 1, "reason": "it is right"}
    assert "resolved" in await court.refused("POST", path, court.arbiter, 409, "conflict", "dispute_id", json=other)
    second = await make_person(court.world.db, Scope.ARBITER)
    await court.refused("POST", path, second, 409, "conflict", "dispute_id", json=verdict)
    await court.world.clean()


async def test_much_takes_two_arbiters_and_one_word_said_twice_is_one(db: Database, tmp_path: Path) -> None:
    court = await court_of(db, tmp_path, dispute_two_above_qu=OWED - 1)
    dispute = await court.judging()
    assert dispute.arbiters_needed == 2
    path = f"/arbiter/disputes/{dispute.dispute_id}/decide"
    verdict = {"award_qu": OWED, "reason": "it is wrong"}
    first = await court.answer_of(DisputeView, "POST", path, court.arbiter, json=verdict)
    again = await court.answer_of(DisputeView, "POST", path, court.arbiter, json=verdict)
    assert (first.state, again.state, again.steps) == (DisputeState.JUDGING, DisputeState.JUDGING, first.steps)
    second = await make_person(db, Scope.ARBITER)
    done = await court.answer_of(DisputeView, "POST", path, second, json={**verdict, "reason": "so it seems to me"})
    assert (done.outcome, done.award_qu) == (Outcome.DECIDED, OWED)
    await court.world.clean()


async def test_tokens_open_only_their_own_side_of_it(court: Court) -> None:
    dispute = f"/disputes/{(await court.open()).dispute_id}"
    for_users = [
        ("POST", "/disputes"),
        ("GET", "/disputes"),
        ("GET", f"/jobs/{court.job.job_id}/disputes"),
        ("GET", f"/jobs/{court.job.job_id}/course"),
        ("GET", dispute),
        ("POST", f"{dispute}/answer"),
        ("POST", f"{dispute}/evidence"),
        ("POST", f"{dispute}/withdraw"),
        ("POST", f"/jobs/{court.job.job_id}/accept"),
        ("POST", f"/jobs/{court.job.job_id}/settle"),
    ]
    for_arbiters = [
        ("GET", "/arbiter/disputes"),
        ("GET", f"/arbiter{dispute}"),
        ("POST", f"/arbiter{dispute}/decide"),
    ]
    for method, path in for_users + for_arbiters:
        await court.refused(method, path, None, 401, "unauthorised", "Authorization")
        other = court.arbiter if (method, path) in for_users else court.consumer
        assert "scope" in await court.refused(method, path, other, 403, "forbidden", "Authorization")


async def test_somebody_elses_dispute_and_job_are_not_there(court: Court) -> None:
    path = f"/disputes/{(await court.open()).dispute_id}"
    for person, at in ((court.stranger, path), (court.consumer, f"/disputes/{NOBODYS}")):
        await court.refused("GET", at, person, 404, "not_found", "dispute_id")
        for verb in ("answer", "evidence"):
            await court.refused("POST", f"{at}/{verb}", person, 404, "not_found", "dispute_id", json=WORDS)
        await court.refused("POST", f"{at}/withdraw", person, 404, "not_found", "dispute_id")
    await court.refused("GET", f"/arbiter/disputes/{NOBODYS}", court.arbiter, 404, "not_found", "dispute_id")
    verdict = {"award_qu": 0, "reason": "?"}
    nobodys = f"/arbiter/disputes/{NOBODYS}/decide"
    await court.refused("POST", nobodys, court.arbiter, 404, "not_found", "dispute_id", json=verdict)
    listed = await court.answer_of(DisputesView, "GET", "/disputes", court.stranger)
    assert (listed.disputes, listed.next) == ((), None)
    for job_id in (court.job.job_id, NOBODYS):
        body = {"job_id": job_id, **WORDS}
        await court.refused("POST", "/disputes", court.stranger, 404, "not_found", "job_id", json=body)
    await court.refused("POST", f"/jobs/{court.job.job_id}/accept", court.stranger, 404, "not_found", "job_id")
    await court.refused("GET", "/disputes/nonsense", court.consumer, 404, "not_found", "path")


async def test_each_side_does_its_own_part_and_each_once(court: Court) -> None:
    dispute = await court.open()
    path = f"/disputes/{dispute.dispute_id}"
    again = {"job_id": court.job.job_id, **WORDS}
    assert "already" in await court.refused("POST", "/disputes", court.consumer, 409, "conflict", "attempt", json=again)
    await court.refused("POST", "/disputes", court.provider, 409, "conflict", "attempt", json=again)
    await court.refused("POST", f"{path}/answer", court.consumer, 403, "forbidden", "dispute_id", json=WORDS)
    await court.refused("POST", f"{path}/withdraw", court.provider, 403, "forbidden", "dispute_id")
    both = {**WORDS, "concede": True, "bond": True}
    await court.refused("POST", f"{path}/answer", court.provider, 422, "invalid_input", "bond", json=both)
    staking = {**WORDS, "bond": True}
    poor = await court.refused("POST", f"{path}/answer", court.provider, 402, "not_enough_balance", None, json=staking)
    assert "deposit" in poor.lower()
    await court.answer_of(DisputeView, "POST", f"{path}/answer", court.provider, json=WORDS)
    await court.refused("POST", f"{path}/answer", court.provider, 409, "conflict", "dispute_id", json=WORDS)
    first = await court.answer_of(DisputeView, "POST", f"{path}/withdraw", court.consumer)
    twice = await court.answer_of(DisputeView, "POST", f"{path}/withdraw", court.consumer)
    assert (first.outcome, first.revision) == (Outcome.WITHDRAWN, twice.revision)
    for verb in ("answer", "evidence"):
        await court.refused("POST", f"{path}/{verb}", court.provider, 409, "conflict", "dispute_id", json=WORDS)
    conceding = {**WORDS, "concede": True}
    await court.refused("POST", f"{path}/answer", court.provider, 409, "conflict", "dispute_id", json=conceding)
    await court.world.clean()


async def test_what_can_be_disputed_is_told_with_its_bond_before_it_is_opened(court: Court) -> None:
    path = f"/jobs/{court.job.job_id}/disputes"
    before = await court.answer_of(JobDisputesView, "GET", path, court.consumer)
    assert (before.side, before.disputes, before.why) == (Side.CONSUMER, (), "")
    (could,) = before.disputable
    assert (could.stake_qu, could.until_ms) == (OWED, court.job.accept_until_ms)
    dispute = await court.open()
    assert (dispute.attempt, dispute.bond_qu) == (could.attempt, could.bond_qu)
    after = await court.answer_of(JobDisputesView, "GET", path, court.consumer)
    assert after.disputable == ()
    assert "already" in after.why
    assert [(one.dispute_id, one.state) for one in after.disputes] == [(dispute.dispute_id, DisputeState.OPENED)]
    theirs = await court.answer_of(JobDisputesView, "GET", path, court.provider)
    assert (theirs.side, theirs.disputable, theirs.disputes) == (Side.PROVIDER, (), after.disputes)
    assert "rejected" in theirs.why
    for person, job_id in ((court.stranger, court.job.job_id), (court.consumer, NOBODYS)):
        await court.refused("GET", f"/jobs/{job_id}/disputes", person, 404, "not_found", "job_id")


async def test_what_cannot_be_disputed_any_more_says_why(court: Court) -> None:
    await court.world.later(WINDOW_S)
    path = f"/jobs/{court.job.job_id}/disputes"
    paid = await court.answer_of(JobDisputesView, "GET", path, court.consumer)
    assert [one.stake_qu for one in paid.disputable] == [OWED]
    await court.world.later(court.world.desk.settings.dispute_s)
    late = await court.answer_of(JobDisputesView, "GET", path, court.consumer)
    assert late.disputable == ()
    assert "ended more than" in late.why


async def test_the_course_of_a_job_tells_each_step_and_each_check_once(court: Court) -> None:
    path = f"/jobs/{court.job.job_id}/course"
    found = await court.answer_of(JobCourseView, "GET", path, court.consumer)
    assert [one.at_ms for one in found.lines] == sorted(one.at_ms for one in found.lines)
    whats = [one.what for one in found.lines if one.what != "checkpoint"]
    assert whats == ["submitted", "assigned", "accepted", "ended", "checked", "delivered"]
    assert sum(one.what == "checkpoint" for one in found.lines) == found.checks[0].parts >= 1
    assert [(one.attempt, one.accepted, one.parts_good) for one in found.checks] == [(1, True, found.checks[0].parts)]
    assert found.checks[0].form_only, "nothing can check this kernel"
    await court.world.later(WINDOW_S)
    done = await court.answer_of(JobCourseView, "GET", path, court.consumer)
    assert done.lines[:-1] == found.lines[:-1]
    assert done.lines[-1].what == "settled"
    await court.refused("GET", path, court.provider, 404, "not_found", "job_id")


async def test_an_arbiters_token_signs_a_page_in_and_follows_a_dispute(db: Database, tmp_path: Path) -> None:
    async with served(db, tmp_path) as running:
        judge = await make_person(db, Scope.ARBITER)
        gateway = await make_person(db, Scope.GATEWAY)
        async with running.client() as page:
            origin = {"Origin": running.url}
            answer = await page.post("/api/v1/session", json={"token": judge.token}, headers=origin)
            assert answer.status_code == 201
            assert answer.json()["account"]["scopes"] == ["arbiter"]
            assert (await page.get("/api/v1/arbiter/disputes")).status_code == 200
            assert (await page.get("/api/v1/jobs")).status_code == 403
            refused = await page.post("/api/v1/session", json={"token": gateway.token}, headers=origin)
            assert refused.status_code == 403


async def test_conceding_ends_it_at_once(court: Court) -> None:
    dispute = await court.open()
    path = f"/disputes/{dispute.dispute_id}/answer"
    done = await court.answer_of(DisputeView, "POST", path, court.provider, json={**WORDS, "concede": True})
    assert (done.outcome, done.award_qu, done.awarded_from) == (Outcome.CONCEDED, OWED, {"hold": OWED})
    assert await court.world.balance_qu(court.consumer.account_id) == CREDIT
    await court.world.clean()


async def test_an_arbiter_decides_in_time_about_others_and_within_the_stake(court: Court) -> None:
    dispute = await court.open()
    path = f"/arbiter/disputes/{dispute.dispute_id}/decide"
    verdict = {"award_qu": OWED, "reason": "it is wrong"}
    early = await court.refused("POST", path, court.arbiter, 409, "conflict", "dispute_id", json=verdict)
    assert "say first" in early
    await court.answer_of(DisputeView, "POST", f"/disputes/{dispute.dispute_id}/answer", court.provider, json=WORDS)
    await court.refused("POST", path, court.arbiter, 409, "conflict", "dispute_id", json=verdict)
    await court.world.later(court.world.desk.settings.dispute_rerun_s)
    for party in (court.consumer, court.provider):
        judge = await token_for(court.world.db, party.account_id, Scope.ARBITER)
        told = await court.refused("POST", path, judge, 403, "forbidden", "dispute_id", json=verdict)
        assert "party" in told
    for award in (OWED + 1, QU_MAX, QU_MAX + 1, -1, 1.5, "5", True, None, 10**30):
        body = {**verdict, "award_qu": award}
        await court.refused("POST", path, court.arbiter, 422, "invalid_input", "award_qu", json=body)
    assert (await court.get(dispute)).state is DisputeState.JUDGING
    done = await court.answer_of(DisputeView, "POST", path, court.arbiter, json=verdict)
    assert done.award_qu == OWED
    await court.world.clean()


BAD_WORDS = [
    ({}, "statement"),
    ({"statement": ""}, "statement"),
    ({"statement": " \n\t"}, "statement"),
    ({"statement": "x" * 4_001}, "statement"),
    ({"statement": 5}, "statement"),
    ({"statement": None}, "statement"),
    ({"statement": "a\x00b"}, "statement"),
    ({"statement": "\x1b[2Jall is well"}, "statement"),
    ({"statement": "x", "digests": ["ab"]}, "digests"),
    ({"statement": "x", "digests": ["zz" * 32]}, "digests"),
    ({"statement": "x", "digests": ["ab" * 32] * 33}, "digests"),
    ({"statement": "x", "digests": "ab" * 32}, "digests"),
    ({"statement": "x", "proof": "y"}, "proof"),
]


async def test_bad_bodies_are_told_by_field(court: Court) -> None:
    async def invalid(path: str, person: Person, body: Any, field: str) -> None:
        response = await ask(court.client, "POST", API + path, person, json=body)
        told = await problem(response, 422, "invalid_input")
        assert told.field.startswith(field), (body, told)

    dispute = await court.judging()
    path = f"/disputes/{dispute.dispute_id}"
    for body, field in BAD_WORDS:
        await invalid("/disputes", court.consumer, {"job_id": court.job.job_id, **body}, field)
        await invalid(f"{path}/answer", court.provider, body, field)
        await invalid(f"{path}/evidence", court.consumer, body, field)
        if "digests" not in body:
            renamed = {"reason" if key == "statement" else key: value for key, value in body.items()}
            wrong = "reason" if field == "statement" else field
            await invalid(f"/arbiter{path}/decide", court.arbiter, {"award_qu": 0, **renamed}, wrong)
    for changes, field in (
        ({"attempt": 0}, "attempt"),
        ({"attempt": "1"}, "attempt"),
        ({"job_id": "nonsense"}, "job_id"),
    ):
        await invalid("/disputes", court.consumer, {"job_id": court.job.job_id, **WORDS, **changes}, field)
    for changes, field in (({"concede": "yes"}, "concede"), ({"bond": 1}, "bond")):
        await invalid(f"{path}/answer", court.provider, {**WORDS, **changes}, field)
    headers = {"Content-Type": "application/json"}
    for raw in (b"", b"{", b"\xff", b'{"statement": "\\ud800"}'):
        response = await ask(court.client, "POST", f"{API}{path}/evidence", court.consumer, data=raw, headers=headers)
        await problem(response, 400, "malformed_body", "body")
    assert (await court.get(dispute)).steps == dispute.steps
    whole = {"statement": "größer: 数\n\tx", "digests": ["ab" * 32] * 32}
    said = await court.answer_of(DisputeView, "POST", f"{path}/evidence", court.consumer, json=whole)
    assert (said.steps[-1].text, len(said.steps[-1].digests)) == (whole["statement"], 32)
    longest = {"award_qu": 0, "reason": "x" * 4_000}
    decided = await court.answer_of(DisputeView, "POST", f"/arbiter{path}/decide", court.arbiter, json=longest)
    assert decided.outcome is Outcome.DECIDED


async def test_no_more_than_twenty_statements_of_a_side(court: Court) -> None:
    path = f"/disputes/{(await court.open()).dispute_id}/evidence"
    for _ in range(19):
        await court.answer_of(DisputeView, "POST", path, court.consumer, json=WORDS)
    response = await ask(court.client, "POST", API + path, court.consumer, json=WORDS)
    told = msgspec.json.decode(await response.get_data())
    assert (response.status_code, told["field"]) == (429, "statement"), told
    await court.answer_of(DisputeView, "POST", path, court.provider, json=WORDS)


async def test_what_cannot_be_disputed(court: Court) -> None:
    body = {"job_id": court.job.job_id, **WORDS}
    no_such = {**body, "attempt": 2}
    await court.refused("POST", "/disputes", court.consumer, 409, "conflict", "attempt", json=no_such)
    theirs = await court.refused("POST", "/disputes", court.provider, 409, "conflict", "attempt", json=body)
    assert "rejected" in theirs
    waiting = await court.world.submit()
    early = {**body, "job_id": waiting.job_id}
    await court.refused("POST", "/disputes", court.consumer, 409, "conflict", "attempt", json=early)
    await court.world.cancel(waiting.job_id)
    left = await court.world.balance_qu(court.consumer.account_id)
    dear = await court.world.submit(cap_qu=left)
    await court.refused("POST", "/disputes", court.consumer, 402, "not_enough_balance", None, json=body)
    await court.world.cancel(dear.job_id)
    await court.world.later(WINDOW_S)
    dispute_s = court.world.desk.settings.dispute_s
    await court.world.later(dispute_s)
    late = await court.refused("POST", "/disputes", court.consumer, 409, "conflict", "job_id", json=body)
    assert f"{dispute_s:g} s" in late
    await court.world.clean()


async def test_after_the_answers_deadline_the_opener_has_won(court: Court) -> None:
    dispute = await court.open()
    assert dispute.due_ms is not None
    await court.world.later(court.world.desk.settings.dispute_answer_s + 1)
    path = f"/disputes/{dispute.dispute_id}/answer"
    late = await court.refused("POST", path, court.provider, 409, "conflict", "dispute_id", json=WORDS)
    assert "too late" in late
    done = await court.get(dispute, court.provider)
    assert (done.outcome, done.due_ms, done.award_qu) == (Outcome.DEFAULTED, None, OWED)
    await court.world.clean()


async def test_accepting_pays_at_once_and_twice_is_once(court: Court) -> None:
    path = f"/jobs/{court.job.job_id}/accept"
    waiting = await court.world.submit()
    early = await court.refused("POST", f"/jobs/{waiting.job_id}/accept", court.consumer, 409, "conflict", "job_id")
    assert "nothing to accept" in early
    await court.refused("POST", f"/jobs/{NOBODYS}/accept", court.consumer, 404, "not_found", "job_id")
    await court.refused("POST", path, court.provider, 404, "not_found", "job_id")
    first = await court.answer_of(JobView, "POST", path, court.consumer)
    twice = await court.answer_of(JobView, "POST", path, court.consumer)
    assert (first.paid_qu + first.fee_qu, first.held_qu) == (OWED, 0)
    assert (twice.state, twice.paid_qu, twice.revision) == (first.state, first.paid_qu, first.revision)
    dispute = await court.open()
    assert dispute.stake_qu == OWED
    await court.world.clean()


async def test_what_is_disputed_is_not_accepted(court: Court) -> None:
    await court.open()
    path = f"/jobs/{court.job.job_id}/accept"
    assert "Withdraw" in await court.refused("POST", path, court.consumer, 409, "conflict", "job_id")


async def test_anybody_may_settle_what_is_due_and_learns_no_more(court: Court) -> None:
    path = f"/jobs/{court.job.job_id}/settle"
    early = await court.answer_of(SettleView, "POST", path, court.stranger)
    assert (early.state, early.due_ms) == (JobState.DELIVERED, court.job.accept_until_ms)
    assert "the next thing is due in" in early.said
    court.world.clock.advance(WINDOW_S + 1)
    done = await court.answer_of(SettleView, "POST", path, court.stranger)
    assert (done.state, done.due_ms) == (JobState.SETTLED, None)
    assert "delivered" in done.said
    again = await court.answer_of(SettleView, "POST", path, court.stranger)
    assert (again.state, again.said) == (JobState.SETTLED, "nothing is left to settle")
    await court.refused("POST", f"/jobs/{NOBODYS}/settle", court.stranger, 404, "not_found", "job_id")
    await court.world.clean()


async def test_anybody_may_end_a_dispute_that_is_due(court: Court) -> None:
    dispute = await court.open()
    path = f"/jobs/{court.job.job_id}/settle"
    early = await court.answer_of(SettleView, "POST", path, court.stranger)
    assert (early.state, early.due_ms) == (JobState.DISPUTED, dispute.due_ms)
    court.world.clock.advance(court.world.desk.settings.dispute_answer_s + 1)
    done = await court.answer_of(SettleView, "POST", path, court.stranger)
    assert done.state is JobState.RESOLVED
    assert (await court.get(dispute)).outcome is Outcome.DEFAULTED
    await court.world.clean()


async def test_lists_are_of_ones_own_in_pages_newest_first(court: Court) -> None:
    mine = [(await court.open()).dispute_id]
    for _ in range(2):
        job = await court.world.delivered(court.node)
        mine.append((await court.open(job_id=job.job_id)).dispute_id)
    mine.reverse()
    first = await court.answer_of(DisputesView, "GET", "/disputes?limit=2", court.consumer)
    rest = await court.answer_of(DisputesView, "GET", f"/disputes?limit=2&after={first.next}", court.consumer)
    assert [one.dispute_id for one in (*first.disputes, *rest.disputes)] == mine
    assert rest.next is None
    theirs = await court.answer_of(DisputesView, "GET", "/disputes", court.provider)
    everybodys = await court.answer_of(DisputesView, "GET", "/arbiter/disputes", court.arbiter)
    for found, you in ((theirs, "provider"), (everybodys, "arbiter")):
        assert [one.dispute_id for one in found.disputes] == mine
        assert {one.you for one in found.disputes} == {you}
    # Whoever is an arbiter, too, has no disputes of their own for that.
    account = (await make_person(court.world.db)).account_id
    both = await token_for(court.world.db, account, Scope.USER, Scope.ARBITER)
    assert (await court.answer_of(DisputesView, "GET", "/disputes", both)).disputes == ()
    assert len((await court.answer_of(DisputesView, "GET", "/arbiter/disputes", both)).disputes) == 3
    for query, field in (
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("after=yesterday", "after"),
        ("after=-1", "after"),
        ("after=" + "9" * 19, "after"),
        ("state=open", "state"),
        ("limit=1&limit=2", "limit"),
    ):
        await court.refused("GET", f"/disputes?{query}", court.consumer, 422, "invalid_input", field)
        await court.refused("GET", f"/arbiter/disputes?{query}", court.arbiter, 422, "invalid_input", field)


async def test_whoever_may_see_it_follows_it_live(db: Database, tmp_path: Path) -> None:
    world = await DisputesWorld(db).open()
    node = await world.node()
    dispute = await world.opened(await world.delivered(node))
    consumer = await token_for(db, world.consumer.account_id)
    provider = await token_for(db, (await world.provider(node)).account_id)
    stranger, topic = await make_person(db), f"dispute:{dispute.dispute_id}"
    async with served(db, tmp_path, clock=world.clock) as running:
        for name, code in ((topic, "not_found"), ("dispute:nonsense", "invalid_input")):
            async with feed_of(running, stranger) as feed:
                await feed.subscribe(name)
                assert (await feed.refusal()).code == code
        async with (
            feed_of(running, consumer) as mine,
            feed_of(running, provider) as theirs,
            running.client(provider) as client,
        ):
            for feed, you in ((mine, "consumer"), (theirs, "provider")):
                await feed.subscribe(topic)
                snapshot = await feed.next()
                assert (snapshot.topic, snapshot.kind, snapshot.data["you"]) == (topic, "snapshot", you)
                assert snapshot.data["state"] == "opened"
            path = f"{API}/disputes/{dispute.dispute_id}"
            await client.post(f"{path}/evidence", json={"statement": "wait"})
            await client.post(f"{path}/answer", json={**WORDS, "concede": True})
            for feed in (mine, theirs):
                events = [await feed.next() for _ in range(2)]
                while events[-1].data["outcome"] is None:
                    events.append(await feed.next())
                assert {(one.topic, one.kind) for one in events} == {(topic, "delta")}
                revisions = [one.data["revision"] for one in events]
                assert revisions == list(range(dispute.revision + 1, dispute.revision + 1 + len(events)))
                assert [one["what"] for one in events[0].data["steps"]] == ["opened", "statement"]
                assert (events[-1].data["outcome"], events[-1].data["you"]) == ("conceded", "")
                assert [(one["by"], one["what"]) for one in events[-1].data["steps"][2:]] == [
                    ("provider", "conceded"),
                    ("market", "conceded"),
                ]
