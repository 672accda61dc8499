# SPDX-License-Identifier: Apache-2.0
"""Trials at the coordinator: begun unannounced, only on idle nodes, in order, each secret at its time (trust C6)."""

import base64
import uuid
from typing import Any

import pytest

from qubix_coordinator.db.database import Database, Tx, execute, one, value
from qubix_coordinator.jobs import seen
from qubix_coordinator.jobs.tables import Job
from qubix_coordinator.market import observed
from qubix_coordinator.market import service as market
from qubix_coordinator.rentals import service as rentals
from qubix_coordinator.settings import Settings
from qubix_coordinator.trials import flow, read, rules, selftests
from qubix_coordinator.trials.engine import AT_ONCE_MAX, Engine
from qubix_kernels.trial.cpu import CpuMemory
from qubix_protocol.messages import Device, KernelRate
from qubix_protocol.rentals import RentalBody
from qubix_protocol.states import Availability, DeviceKind
from qubix_protocol.trials import TrialAnswer, TrialFailed, TrialFilled, TrialReady, TrialShape
from tests.db.jobs_world import FEE_BPS, Node, World
from tests.db.test_selftests import selftest

pytestmark = pytest.mark.asyncio
FIRST_S, EVERY_S, AGE_S = 60.0, 3_600.0, 86_400.0
RATE = KernelRate(kernel="matmul", backend="cpu", flops_per_s=1e10, bytes_per_s=1e10)


class TrialWorld(World):
    """Its nodes have two devices of a MiB, the clock stands still, and trials begin when they are told to."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        settings = Settings(
            data_dir=self.desk.settings.data_dir,
            fee_bps=FEE_BPS,
            trial_first_s=FIRST_S,
            trial_every_s=EVERY_S,
            trial_age_s=AGE_S,
            trial_fill_s=0.1,
            trial_cpu_bytes=2**20,
        )
        self.desk = type(self.desk)(db, settings, self.clock, self.key, "devnet")
        self.start()

    def start(self) -> None:
        """Once more is a restart of the market."""
        self.trials = Engine(self.desk, steady_s=lambda: 0.0)

    async def node(self, **changes: Any) -> "Tried":
        node = Tried(self)
        await node.offer_both(**changes)
        for device in node.devices:
            await selftests.on_selftest(self.desk, node.peer, selftest(device_id=device))
        return node

    async def tick(self, after_s: float = 0.0) -> None:
        if after_s:
            self.clock.advance(after_s)
        await self.trials.tick()


class Tried(Node):
    devices = ("cpu-1", "cpu-2")

    @property
    def tried(self) -> "TrialWorld":
        assert isinstance(self.world, TrialWorld)
        return self.world

    async def offer_both(self, **changes: Any) -> None:
        """As it says again every half minute."""
        for device_id in self.devices:
            device = Device(
                device_id=device_id, kind=DeviceKind.CPU, model="A CPU", memory_bytes=2**30, backends=("cpu",)
            )
            await self.offer(**({"device": device, "rates": (RATE,)} | changes))

    async def begin(self) -> dict[str, Any]:
        """Its trial, once one is due."""
        self.tried.clock.advance(1.5 * FIRST_S + 1)
        await self.offer_both()
        await self.tried.tick()
        return (await self.told("trial_ask"))[-1]

    async def told(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in await self.world.commands(self) if one["t"] == kind]

    async def all_ready(self, trial_id: str) -> None:
        for device in self.devices:
            await flow.on_ready(self.tried.desk, self.peer, TrialReady(trial_id=trial_id, device_id=device))

    async def filled(self, trial_id: str, device: str, took_ms: int | None = 10) -> None:
        await flow.on_filled(self.tried.desk, self.peer, TrialFilled(trial_id=trial_id, device_id=device), took_ms)

    async def answer(self, trial_id: str, device: str, digests: bytes, took_ms: int | None = 10) -> None:
        message = TrialAnswer(trial_id=trial_id, device_id=device, digests=digests)
        await flow.on_answer(self.tried.desk, self.peer, message, took_ms)

    async def honest(self, ask: dict[str, Any], spoil: bool = False) -> None:
        """From the first word to the last."""
        trial_id = ask["trial_id"]
        await self.all_ready(trial_id)
        (go,) = [one for one in await self.told("trial_go") if one["trial_id"] == trial_id]
        memories = {}
        for part in ask["parts"]:
            memory = memories[part["device_id"]] = CpuMemory(TrialShape(**part["shape"]), part["device_id"])
            memory.fill(secret(go["seed"]))
            await self.filled(trial_id, part["device_id"])
        (prove,) = [one for one in await self.told("trial_prove") if one["trial_id"] == trial_id]
        for device, memory in memories.items():
            digests = memory.digests(secret(prove["key"]))
            await self.answer(trial_id, device, bytes(len(digests)) if spoil else digests)

    async def standing(self) -> list[tuple[bool, float]]:
        found = await self.tried.db.fetch(
            "SELECT verified, score FROM listing WHERE peer_id = $1 ORDER BY device_id", self.peer
        )
        return [(row["verified"], row["score"]) for row in found]

    async def newest(self) -> Any:
        trials = await read.trials(self.tried.db, market.listing_id(self.peer, "cpu-1"))
        return trials.trials[0]


def secret(told: Any) -> bytes:
    """As it stands in a command."""
    return base64.b64decode(told) if isinstance(told, str) else bytes(told)


async def test_an_honest_node_is_tried_all_at_once_and_verified_with_its_score(db: Database) -> None:
    world = TrialWorld(db)
    node = await world.node()
    assert await node.standing() == [(False, 0.0)] * 2, "tested, not tried"
    ask = await node.begin()
    assert sorted(part["device_id"] for part in ask["parts"]) == ["cpu-1", "cpu-2"]
    await node.honest(ask)
    await world.tick()
    trial = await node.newest()
    assert (trial.verdict, trial.reason, trial.fill_ms, trial.proof_ms) == ("passed", "", 10, 10)
    assert await node.standing() == [(True, trial.gflops)] * 2
    assert trial.gflops > 0
    (end,) = await node.told("trial_end")
    assert (end["verdict"], end["remedy"]) == ("passed", "")


async def test_seed_and_key_are_told_when_every_device_waits_for_them_and_not_before(db: Database) -> None:
    world = TrialWorld(db)
    node = await world.node()
    trial_id = (await node.begin())["trial_id"]
    await flow.on_ready(world.desk, node.peer, TrialReady(trial_id=trial_id, device_id="cpu-1"))
    assert await node.told("trial_go") == []
    await node.filled(trial_id, "cpu-1")
    async with db.transaction() as tx:
        assert await value(tx, "SELECT seed FROM trial") is None, "out of turn"
    await node.all_ready(trial_id)
    assert len(await node.told("trial_go")) == 1
    await node.filled(trial_id, "cpu-1")
    assert await node.told("trial_prove") == []
    await node.answer(trial_id, "cpu-1", b"")
    await node.filled(trial_id, "cpu-2")
    assert len(await node.told("trial_prove")) == 1
    async with db.transaction() as tx:
        found = await one(tx, "SELECT seed, key FROM trial")
        assert found is not None
        assert bytes(found["seed"]) != bytes(found["key"])
        assert await value(tx, "SELECT count(*) FROM trial_part WHERE proof_ms IS NOT NULL") == 0


async def test_of_what_is_said_twice_the_first_time_counts(db: Database) -> None:
    world = TrialWorld(db)
    node = await world.node()
    trial_id = (await node.begin())["trial_id"]
    await node.all_ready(trial_id)
    for took_ms in (20, 10):
        await node.filled(trial_id, "cpu-1", took_ms=took_ms)
    assert await db.fetch_value("SELECT fill_ms FROM trial_part WHERE device_id = 'cpu-1'") == 20


async def test_so_many_trials_run_at_once_and_no_more(db: Database) -> None:
    world = TrialWorld(db)
    node = await world.node()
    async with db.transaction() as tx:
        await execute(tx, "SET LOCAL session_replication_role = replica")
        await execute(
            tx,
            "INSERT INTO trial (id, peer_id, state, asked_ms, due_ms) SELECT gen_random_uuid(), 'other ' || n, 'asked',"
            " 0, 2::bigint ^ 60 FROM generate_series(1, $1) AS n",
            AT_ONCE_MAX,
        )
    world.clock.advance(1.5 * FIRST_S + 1)
    await node.offer_both()
    await world.tick()
    assert await node.told("trial_ask") == []
    await db.fetch("DELETE FROM trial WHERE peer_id = 'other 1' RETURNING id")
    await world.tick()
    assert len(await node.told("trial_ask")) == 1


@pytest.mark.parametrize("step", ["silent", "slow", "late", "unheld", "wrong", "short"])
async def test_who_is_not_what_it_claims_is_refused_and_hears_what_to_do(db: Database, step: str) -> None:
    world = TrialWorld(db)
    node = await world.node()
    ask = await node.begin()
    trial_id = ask["trial_id"]
    why = {"silent": "silent", "slow": "time", "late": "time", "unheld": "memory"}.get(step, "wrong")
    if step == "silent":
        await world.tick(after_s=200)
    elif step in ("wrong", "short"):
        if step == "wrong":
            await node.honest(ask, spoil=True)
        else:
            await node.all_ready(trial_id)
            for device in node.devices:
                await node.filled(trial_id, device)
            for device in node.devices:
                await node.answer(trial_id, device, b"12345678")
        await world.tick()
    else:
        await node.all_ready(trial_id)
        if step == "slow":
            await node.filled(trial_id, "cpu-1", took_ms=1_000_000)
        elif step == "late":
            await node.filled(trial_id, "cpu-1")
            await world.tick(after_s=200)
        else:
            for device in node.devices:
                await node.filled(trial_id, device)
            await node.answer(trial_id, "cpu-1", b"", took_ms=1_000_000)
    trial = await node.newest()
    assert (trial.verdict, trial.reason) == ("failed", why)
    assert await node.standing() == [(False, 0.0)] * 2
    (end,) = await node.told("trial_end")
    assert (end["verdict"], bool(end["remedy"])) == ("failed", True)


async def test_a_failed_trial_takes_back_what_an_earlier_one_gave(db: Database) -> None:
    world = TrialWorld(db)
    node = await world.node()
    await node.honest(await node.begin())
    await world.tick()
    assert (await node.standing())[0][0]
    world.clock.advance(1.5 * EVERY_S)
    ask = await node.begin()
    await node.all_ready(ask["trial_id"])
    await node.filled(ask["trial_id"], "cpu-1", took_ms=1_000_000)
    assert await node.standing() == [(False, 0.0)] * 2


async def test_other_claims_are_not_verified_by_what_was_tried_before(db: Database) -> None:
    world = TrialWorld(db)
    node = await world.node()
    await node.honest(await node.begin())
    await world.tick()
    grown = Device(device_id="cpu-1", kind=DeviceKind.CPU, model="A CPU", memory_bytes=2**31, backends=("cpu",))
    await node.offer(device=grown, rates=(RATE,))
    assert [verified for verified, _ in await node.standing()] == [False, True]


async def test_old_evidence_verifies_nobody(db: Database) -> None:
    world = TrialWorld(db)
    node = await world.node()
    await node.honest(await node.begin())
    await world.tick()
    await world.trials._forget_the_old()
    assert (await node.standing())[0][0]
    world.clock.advance(AGE_S + 1)
    await world.trials._forget_the_old()
    assert await node.standing() == [(False, 0.0)] * 2


async def test_accepted_work_lowers_the_score_and_never_raises_it(db: Database) -> None:
    world = TrialWorld(db)
    node = await world.node()
    slow, fast = (market.listing_id(node.peer, device) for device in node.devices)
    for listing, gflops in ((slow, 1e-3), (fast, 1e9)):
        await db.run(lambda tx, key=listing, rate=gflops: observed.remember(tx, key, uuid.uuid4(), rate, now_ms=1))
    await node.honest(await node.begin())
    await world.tick()
    trial = await node.newest()
    assert await node.standing() == [(True, 1e-3), (True, trial.gflops)]


async def test_what_jobs_show_later_counts_within_a_minute(db: Database) -> None:
    world = TrialWorld(db)
    node = await world.node()
    await node.honest(await node.begin())
    await world.tick()
    await world.trials._forget_the_old()
    tried = (await node.newest()).gflops
    key, now_ms = market.listing_id(node.peer, "cpu-2"), world.desk.now_ms()
    await db.run(lambda tx: observed.remember(tx, key, uuid.uuid4(), tried / 2, now_ms=now_ms))
    await world.trials._forget_the_old()
    assert await node.standing() == [(True, tried), (True, tried / 2)]


async def in_use(world: TrialWorld, node: Tried, how: str) -> None:
    if how == "rented":
        await world.open()
        body = RentalBody(listing_id=str(market.listing_id(node.peer, "cpu-2")), seconds=600)
        await rentals.create(world.desk, world.consumer, body, "key")
    elif how == "busy":
        await node.offer_both(availability=Availability.BUSY)
    elif how == "draining":
        await node.offer_both(availability=Availability.DRAINING)
    else:
        await market.node_offline(world.db, node.peer, incarnation=9, now_ms=world.desk.now_ms())


@pytest.mark.parametrize("how", ["rented", "busy", "draining", "away"])
async def test_nothing_begins_on_a_node_that_is_in_use(db: Database, how: str) -> None:
    world = TrialWorld(db)
    node = await world.node()
    world.clock.advance(1.5 * FIRST_S + 1)
    await node.offer_both()
    await in_use(world, node, how)
    await world.tick()
    assert await node.told("trial_ask") == []
    async with db.transaction() as tx:
        assert await value(tx, "SELECT next_ms FROM trial_plan") > world.desk.now_ms(), "later"


async def test_a_job_under_way_keeps_a_trial_from_its_node(db: Database) -> None:
    world = TrialWorld(db)
    await world.open()
    node = await world.node()
    job = await world.submit()
    await world.engine.tick()
    await node.accept()
    world.clock.advance(1.5 * FIRST_S + 1)
    await node.offer_both()
    await world.tick()
    assert job is not None
    assert await node.told("trial_ask") == []


async def test_a_job_that_comes_in_between_makes_it_void_and_the_third_void_in_a_row_is_a_finding(
    db: Database,
) -> None:
    world = TrialWorld(db)
    node = await world.node()
    verdicts = []
    for _ in range(3):
        trial_id = (await node.begin())["trial_id"]
        await flow.on_failed(world.desk, node.peer, TrialFailed(trial_id=trial_id, device_id="cpu-1", reason="busy"))
        verdicts.append((await node.newest()).verdict)
        world.clock.advance(1.5 * EVERY_S)
    assert verdicts == ["void", "void", "failed"]


async def test_an_answer_of_another_session_has_no_time_and_shows_nothing(db: Database) -> None:
    world = TrialWorld(db)
    node = await world.node()
    trial_id = (await node.begin())["trial_id"]
    await node.all_ready(trial_id)
    await node.filled(trial_id, "cpu-1", took_ms=None)
    assert ((await node.newest()).verdict, (await node.newest()).reason) == ("void", "session")


@pytest.mark.parametrize("answers", [True, False])
async def test_what_the_market_was_not_there_to_hear_or_to_judge_is_held_against_nobody(
    db: Database, answers: bool
) -> None:
    world = TrialWorld(db)
    node = await world.node()
    await node.honest(await node.begin())
    await world.tick()
    for _ in range(rules.VOIDS_MAX):
        world.clock.advance(1.5 * EVERY_S)
        ask = await node.begin()
        if answers:
            await node.honest(ask)
        world.start()
        await world.tick(after_s=200)
        trial = await node.newest()
        assert (trial.verdict, trial.reason) == ("void", "away")
    assert [verified for verified, _ in await node.standing()] == [True, True], "what was shown before stands"


class Stumbling(Engine):
    """Cannot judge one trial, nor begin one with a certain node."""

    trial: Any = None
    peer = ""

    def _looked_at(self, trial: Any, part: Any, answer: bytes) -> Any:
        if trial["id"] == self.trial:
            raise RuntimeError("this one cannot be judged")
        return super()._looked_at(trial, part, answer)

    async def begin(self, tx: Tx, peer_id: str) -> bool:
        if peer_id == self.peer:
            raise RuntimeError("this one cannot be begun")
        return await super().begin(tx, peer_id)


async def test_a_trial_that_goes_wrong_here_keeps_nobody_waiting(db: Database) -> None:
    world = TrialWorld(db)
    world.trials = engine = Stumbling(world.desk, steady_s=lambda: 0.0)
    first, second = await world.node(), await world.node()
    world.clock.advance(1.5 * FIRST_S + 1)
    for node in (first, second):
        await node.offer_both()
    await world.tick()
    asks = [(await node.told("trial_ask"))[-1] for node in (first, second)]
    engine.trial = uuid.UUID(asks[0]["trial_id"])
    for node, ask in zip((first, second), asks, strict=True):
        await node.honest(ask)
        world.clock.advance(0.01)
    third, fourth = await world.node(), await world.node()
    engine.peer = third.peer
    await world.tick(1.5 * FIRST_S + 1)
    assert [verified for verified, _ in await second.standing()] == [True, True], "the first stands before it in line"
    assert await first.standing() == [(False, 0.0)] * 2
    for node in (third, fourth):
        await node.offer_both()
    await db.run(lambda tx: execute(tx, "UPDATE trial_plan SET next_ms = 1 WHERE peer_id = $1", third.peer))
    await db.run(lambda tx: execute(tx, "UPDATE trial_plan SET next_ms = 2 WHERE peer_id = $1", fourth.peer))
    await world.tick()
    assert (len(await third.told("trial_ask")), len(await fourth.told("trial_ask"))) == (0, 1)
    engine.trial, engine.peer = None, ""
    await world.tick()
    assert await first.standing() == [(False, 0.0)] * 2, "it rests: others' rounds are not spent on it"
    assert len(await third.told("trial_ask")) == 0, "so does this one"
    await world.tick(61)
    assert len(await third.told("trial_ask")) == 1, "it has rested"


async def test_another_node_s_word_changes_nothing(db: Database) -> None:
    world = TrialWorld(db)
    node, other = await world.node(), await world.node()
    trial_id = (await node.begin())["trial_id"]
    await other.all_ready(trial_id)
    await flow.on_failed(world.desk, other.peer, TrialFailed(trial_id=trial_id, device_id="cpu-1", reason="box"))
    async with db.transaction() as tx:
        assert await value(tx, "SELECT state FROM trial WHERE id = $1", uuid.UUID(trial_id)) == "asked"
        assert await value(tx, "SELECT count(*) FROM trial_part WHERE ready") == 0


async def test_trials_are_spread_by_chance_and_bounded_however_often_a_node_asks_for_them(db: Database) -> None:
    world = TrialWorld(db)
    nodes = [await world.node() for _ in range(8)]
    planned = [row["next_ms"] for row in await db.fetch("SELECT next_ms FROM trial_plan ORDER BY next_ms")]
    assert len(set(planned)) > 1, "drawn by the operating system"
    now_ms = world.desk.now_ms()
    assert all(0.5 * FIRST_S * 1000 <= at_ms - now_ms <= 1.5 * FIRST_S * 1000 for at_ms in planned)
    node = nodes[0]
    trial_id = (await node.begin())["trial_id"]
    await flow.on_failed(world.desk, node.peer, TrialFailed(trial_id=trial_id, device_id="cpu-1", reason="box"))
    for _ in range(3):
        await selftests.on_selftest(world.desk, node.peer, selftest())
    async with db.transaction() as tx:
        at_ms = await value(tx, "SELECT next_ms FROM trial_plan WHERE peer_id = $1", node.peer)
    assert at_ms >= world.desk.now_ms() + 0.5 * EVERY_S * 1000


async def test_accepted_float32_products_of_some_size_are_what_jobs_show(db: Database) -> None:
    world = TrialWorld(db)
    await world.open()
    node = await Node(world).offer()
    job_id = uuid.UUID((await world.assigned()).job_id)
    await node.whole_job()
    await world.check()
    attempt, listing = await node.attempt(), market.listing_id(node.peer, "cpu-1")
    assert await db.run(lambda tx: observed.gflops(tx, listing)) is None, "too small to say anything"

    async def note(dtype: str, billed_ms: int) -> float | None:
        """As if the job had been of 2,000 rows of 1,000 × 1,000."""
        async with db.transaction() as tx:
            await execute(
                tx,
                "UPDATE job_input SET meta = jsonb_build_object('dtype', $2::text, 'shape', jsonb_build_array("
                " CASE name WHEN 'a' THEN 2000 ELSE 1000 END, 1000)) WHERE job_id = $1",
                job_id,
                dtype,
            )
            attempt.units_accepted, attempt.billed_ms = 2_000, billed_ms
            await seen.note(tx, await Job.filter(id=job_id).using_db(tx).get(), attempt, now_ms=1)
            return await observed.gflops(tx, listing)

    assert await note("float64", 1_000) is None
    assert await note("float32", 100) is None
    assert await note("float32", 1_000) == pytest.approx(4.0)
    assert await note("float32", 500) == pytest.approx(4.0), "each attempt once"
