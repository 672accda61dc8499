# SPDX-License-Identifier: Apache-2.0
"""What is not believed, not done twice, and not given to anybody else."""

import asyncio
import uuid

import pytest

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Principal, Scope
from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import (
    CauseReused,
    Conflict,
    Forbidden,
    InvalidInput,
    NotEnoughBalance,
    NotFound,
    StaleAttempt,
)
from qubix_coordinator.jobs import service as jobs
from qubix_protocol import digests
from qubix_protocol.api import EstimateBody, InputBody
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.envelope import seal
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Accept, ArtifactRequest, InputRef, Order
from qubix_protocol.states import JobState, Outcome, Reason
from tests.db.jobs_world import CAP, METAS, UNITS, World


async def evidence(db: Database) -> int:
    return int(await db.fetch_value("SELECT count(*) FROM evidence"))


# Nodes --------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_stale_attempt_is_refused_kept_and_told_to_stop(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    await world.assigned()
    attempt = await node.accept()
    await node.work(0, 10)
    await world.pass_time(11.0)
    late = node.next_link(10, 20, 1_000)
    await node.upload(late)
    with pytest.raises(StaleAttempt):
        await node.send(late, attempt)
    assert await evidence(db) == 1
    assert (await world.commands(node))[-1]["t"] == "cancel"
    # The report that answers the cancel completes the receipt: it speaks of the chain that is here.
    await node.report(Outcome.CANCELLED, attempt)
    await world.check()
    (receipt,) = (await jobs.receipts(world.desk, world.consumer, str(attempt.job_id))).receipts
    assert receipt.report


@pytest.mark.asyncio
async def test_a_superseded_attempts_report_is_evidence_and_never_paid(db: Database) -> None:
    """M4."""
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    attempt = await node.accept()
    await world.pass_time(11.0)
    assert (await node.report(Outcome.COMPLETED, attempt, links=4, units_done=UNITS)).link is None
    assert await evidence(db) == 1
    assert await node.earned_qu() == 0
    assert (await world.job(view.job_id)).attempts[0].reason is Reason.SILENT


@pytest.mark.asyncio
async def test_a_wrong_fence_is_stale(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    await world.assigned()
    attempt = await node.attempt()
    with pytest.raises(StaleAttempt):
        await jobs.on_accept(world.desk, node.peer, Accept(attempt_id=str(attempt.id), fence=attempt.fence + 1))


@pytest.mark.asyncio
async def test_another_providers_attempt_is_nobody_elses(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    stranger = await world.node(rate_qu_per_h=36_000_000)
    await world.assigned()
    attempt = await node.accept()
    link = stranger.next_link(0, 10, 1)
    await stranger.upload(link, attempt)
    with pytest.raises(Forbidden):
        await stranger.send(link, attempt)
    with pytest.raises(Forbidden):
        await stranger.report(Outcome.COMPLETED, attempt)
    with pytest.raises(NotFound):
        await jobs.on_accept(world.desk, node.peer, Accept(attempt_id=str(uuid.uuid4()), fence=1))
    # A heartbeat for somebody else's attempt changes nothing, and is answered by a cancel.
    await stranger.beat(0.9, attempt)
    assert (await world.commands(stranger))[-1]["t"] == "cancel"
    assert (await node.attempt()).fraction == 0.0


@pytest.mark.asyncio
async def test_the_same_link_twice_is_one_link_and_another_content_is_refused(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    await world.assigned()
    await node.accept()
    link = await node.work(0, 10)
    again = await node.send(link)
    assert again is not None
    assert again.link == 0
    assert (await node.attempt()).links == 1
    node.links, node.head = [], digests.ZERO
    other = node.next_link(0, 10, 1_000, b"another output")
    await node.upload(other)
    with pytest.raises(Conflict):
        await node.send(other)


@pytest.mark.asyncio
async def test_links_come_in_order_without_gaps(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    await world.assigned()
    await node.accept()
    await node.work(0, 10)
    for start, stop in ((20, 30), (10, UNITS + 1), (0, 10), (9, 20)):
        link = node.next_link(start, stop, 1)
        await node.upload(link)
        with pytest.raises(Conflict):
            await node.send(link)
    node.head = digests.ZERO
    fork = node.next_link(10, 20, 1)
    await node.upload(fork)
    with pytest.raises(Conflict):
        await node.send(fork)


@pytest.mark.asyncio
async def test_a_link_needs_its_output(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    await world.assigned()
    await node.accept()
    link = node.next_link(0, 10, 1)
    with pytest.raises(Conflict, match="not here"):
        await node.send(link)
    await world.store(link.output_digest, link.output_bytes + 1, None, writer=str((await node.attempt()).id))
    with pytest.raises(Conflict, match="another size"):
        await node.send(link)


@pytest.mark.asyncio
async def test_a_report_must_match_what_is_here(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    await node.accept()
    await node.work(0, UNITS)
    for wrong in ({"links": 2}, {"head": bytes(32)}, {"params_digest": bytes(32)}, {"kernel": "knn"}):
        with pytest.raises(Conflict):
            await node.report(**wrong)
    assert (await world.job(view.job_id)).state is JobState.RUNNING
    await node.report()
    await node.report()
    with pytest.raises(Conflict, match="already"):
        await node.report(finished_ms=99)


@pytest.mark.asyncio
async def test_an_artifact_opens_to_the_live_attempt_alone(db: Database) -> None:
    """D1."""
    world = await World(db).open()
    node = await world.node()
    other = await world.node(rate_qu_per_h=36_000_000)
    await world.assigned()
    attempt = await node.accept()
    digest, size = world.input_of("a", METAS["a"])

    def request(method: str = "GET", **changes: object) -> ArtifactRequest:
        plain: dict[str, object] = {
            "method": method,
            "digest": digest,
            "size_bytes": size,
            "attempt_id": str(attempt.id),
            "fence": attempt.fence,
        }
        return ArtifactRequest(**(plain | changes))  # type: ignore[arg-type]

    async def ask(peer: str, wanted: ArtifactRequest) -> uuid.UUID:
        return await db.run(lambda tx: jobs.may_access(tx, peer, wanted))

    assert await ask(node.peer, request()) == world.consumer.account_id
    assert await ask(node.peer, request("PUT", digest=bytes(32), size_bytes=1_000)) == world.consumer.account_id
    for peer, wanted in (
        (other.peer, request()),
        (node.peer, request(fence=attempt.fence + 1)),
        (node.peer, request(digest=bytes(32))),
        (node.peer, request(size_bytes=size + 1)),
        (node.peer, request(attempt_id=str(uuid.uuid4()))),
        (node.peer, request("PUT", size_bytes=10**9)),
    ):
        with pytest.raises(Forbidden):
            await ask(peer, wanted)
    await world.pass_time(11.0)
    with pytest.raises(Forbidden):
        await ask(node.peer, request())


# Cancelling ---------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("report_first", [True, False])
async def test_cancel_and_report(db: Database, report_first: bool) -> None:
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    attempt = await node.accept()
    await node.work(0, 50, 2_000, took_s=2.0)
    if report_first:
        await node.work(50, UNITS, 2_000, took_s=2.0)
        await node.report()
        with pytest.raises(Conflict):
            await world.cancel(view.job_id)
        await world.check()
        assert (await world.job(view.job_id)).state is JobState.SETTLED
    else:
        await world.cancel(view.job_id)
        await node.report(Outcome.CANCELLED, attempt)
        await world.check()
        job = await world.job(view.job_id)
        assert (job.state, job.reason) == (JobState.CANCELLED, Reason.CANCELLED_BY_CONSUMER)
        assert (job.units_accepted, job.paid_qu + job.fee_qu) == (50, 2_000)
        assert (await world.cancel(view.job_id)).state is JobState.CANCELLED
    await world.check_money()


@pytest.mark.asyncio
async def test_cancel_and_report_at_the_same_moment(db: Database) -> None:
    """Whoever takes the job's lock first decides; the money is right either way."""
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    await node.accept()
    await node.work(0, UNITS, 2_000, took_s=2.0)
    await asyncio.gather(node.report(), world.cancel(view.job_id), return_exceptions=True)
    await world.check()
    # Every unit was here before the cancel, so the result stands and is paid in both orders.
    assert (await world.job(view.job_id)).state is JobState.SETTLED
    await world.check_money()


@pytest.mark.asyncio
async def test_cancelling_before_anybody_works_costs_nothing(db: Database) -> None:
    world = await World(db).open()
    queued = await world.submit()
    assert (await world.cancel(queued.job_id)).returned_qu == CAP
    node = await world.node()
    offered = await world.assigned()
    assert (await world.cancel(offered.job_id)).state is JobState.CANCELLED
    assert (await world.commands(node))[-1]["t"] == "cancel"
    await world.check_money()


# Submitting ---------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_the_same_submission_is_one_job(db: Database) -> None:
    world = await World(db).open()
    views = await asyncio.gather(*(jobs.submit(world.desk, world.consumer, world.body(), "once") for _ in range(4)))
    assert len({view.job_id for view in views}) == 1
    assert await db.fetch_value("SELECT count(*) FROM hold") == 1
    with pytest.raises(CauseReused):
        await jobs.submit(world.desk, world.consumer, world.body(cap_qu=CAP + 1), "once")


@pytest.mark.asyncio
async def test_a_cap_above_the_balance_is_refused(db: Database) -> None:
    world = await World(db).open(credit_qu=CAP - 1)
    with pytest.raises(NotEnoughBalance) as refused:
        await world.submit()
    assert refused.value.field == "cap_qu"
    assert await db.fetch_value("SELECT count(*) FROM job") == 0


FLOAT = ArrayMeta("float32", (UNITS, 8))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kernel": "nosuch"}, "kernel"),
        ({"params": {"k": 1}}, "params.k"),
        ({"inputs": {}}, "inputs.a"),
        ({"a": {"meta": ArrayMeta("int32", (UNITS, 8))}}, "inputs.a.dtype"),
        ({"a": {"meta": ArrayMeta("float32", (UNITS, 9))}}, "inputs.b.shape"),
        ({"a": {"meta": ArrayMeta("float32", (2**40, 8))}}, "inputs.a.meta"),
        ({"a": {"meta": ArrayMeta("float32", (UNITS + 1, 8))}}, "inputs.a.meta"),
        ({"a": {"digest": "ab" * 32}}, "inputs.a.digest"),
        ({"a": {"size_bytes": 5}}, "inputs.a.size_bytes"),
        ({"order": "zz"}, "order"),
    ],
)
async def test_bad_input_names_its_field_and_remedy(db: Database, changes: dict[str, object], field: str) -> None:
    world = await World(db).open()
    body = world.body()
    plain = dict(changes)
    if "a" in plain:
        one = body.inputs["a"]
        wrong = {"digest": one.digest, "size_bytes": one.size_bytes, "meta": one.meta} | plain.pop("a")  # type: ignore[operator]
        plain["inputs"] = dict(body.inputs) | {"a": InputBody(**wrong)}
    with pytest.raises(InvalidInput) as refused:
        await world.submit(**plain)
    assert refused.value.field == field
    assert refused.value.problem
    assert refused.value.remedy
    assert await db.fetch_value("SELECT count(*) FROM job") == 0


def order(world: World, key: SigningKey, idempotency_key: str, **changes: object) -> str:
    body = world.body()
    refs = [
        InputRef(name=name, digest=bytes.fromhex(one.digest), size_bytes=one.size_bytes, meta=one.meta)
        for name, one in body.inputs.items()
    ]
    plain: dict[str, object] = {
        "idempotency_key": idempotency_key,
        "kernel": "matmul",
        "params_digest": digests.of_params({}),
        "inputs_digest": digests.of_inputs(refs),
        "cap_qu": CAP,
        "rate_qu_per_h_max": None,
    }
    audience = changes.pop("audience", world.key.public)
    assert isinstance(audience, bytes)
    return seal(
        Order(**(plain | changes)),  # type: ignore[arg-type]
        key,
        network="devnet",
        audience=audience,
        incarnation=0,
        counter=1,
        expires_ms=world.desk.now_ms() + 60_000,
    ).hex()


@pytest.mark.asyncio
async def test_once_signed_always_signed(db: Database) -> None:
    """M6: the key of the first signed order is the account's; from then on every job needs its signature."""
    world, key = await World(db).open(), SigningKey.generate()

    async def submit(name: str, text: str) -> JobState:
        return (await jobs.submit(world.desk, world.consumer, world.body(order=text), name)).state

    assert await submit("one", "") is JobState.QUEUED
    with pytest.raises(InvalidInput) as refused:
        await submit("two", order(world, key, "two", cap_qu=CAP - 1))
    assert refused.value.field == "order.cap_qu"
    assert await submit("two", order(world, key, "two")) is JobState.QUEUED
    with pytest.raises(Forbidden):
        await submit("three", "")
    with pytest.raises(Conflict):
        await submit("three", order(world, SigningKey.generate(), "three"))
    with pytest.raises(InvalidInput):
        await submit("three", order(world, key, "two"))


# Reading ------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_somebody_elses_job_is_not_there(db: Database) -> None:
    world = await World(db).open()
    view = await world.submit()
    stranger = Principal(uuid.uuid4(), frozenset({Scope.USER}))
    await db.run(lambda tx: accounts.create_account(tx, "stranger", account_id=stranger.account_id))
    for call in (jobs.get, jobs.cancel, jobs.result, jobs.receipts):
        with pytest.raises(NotFound):
            await call(world.desk, stranger, view.job_id)
        with pytest.raises(NotFound):
            await call(world.desk, world.consumer, "not-a-uuid")
    assert (await jobs.list_jobs(world.desk, stranger)).jobs == ()


@pytest.mark.asyncio
async def test_an_unpaid_result_is_not_readable(db: Database) -> None:
    world = await World(db).open()
    node = await world.node()
    view = await world.assigned()
    with pytest.raises(Conflict, match="assigned"):
        await jobs.result(world.desk, world.consumer, view.job_id)
    await node.whole_job()
    with pytest.raises(Conflict, match="verifying"):
        await jobs.result(world.desk, world.consumer, view.job_id)
    assert await db.fetch_value("SELECT count(*) FROM artifact WHERE readable AND origin = 'attempt'") == 0
    await world.check()
    assert await db.fetch_value("SELECT count(*) FROM artifact WHERE readable AND origin = 'attempt'") == 4
    assert len((await jobs.result(world.desk, world.consumer, view.job_id)).parts) == 4


@pytest.mark.asyncio
async def test_pages_follow_each_other(db: Database) -> None:
    world = await World(db).open()
    made = [(await world.submit(cap_qu=10)).job_id for _ in range(5)]
    seen: list[str] = []
    after: str | None = None
    while True:
        page = await jobs.list_jobs(world.desk, world.consumer, after=after, limit=2)
        seen += [job.job_id for job in page.jobs]
        after = page.next
        if after is None:
            break
    assert seen == made[::-1]
    with pytest.raises(InvalidInput):
        await jobs.list_jobs(world.desk, world.consumer, after="x")


@pytest.mark.asyncio
async def test_an_estimate_names_price_and_time(db: Database) -> None:
    world = await World(db).open()
    await world.node()
    cheap = await world.node(rate_qu_per_h=1_800_000)
    found = await jobs.estimate(world.desk, EstimateBody(kernel="matmul", inputs=METAS))
    assert [one.cost_qu for one in found.candidates] == [5_000, 10_000]
    assert found.candidates[0].provider == cheap.peer
    assert (found.units, found.output["c"]) == (UNITS, ArrayMeta("float32", (UNITS, 4)))
    with pytest.raises(InvalidInput):
        await jobs.estimate(world.desk, EstimateBody(kernel="matmul", inputs={"a": FLOAT}))
