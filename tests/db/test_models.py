# SPDX-License-Identifier: Apache-2.0
"""Models that are described for accounts: asked over HTTP, answered from a real box, hostile ones refused.

The box, the artifact store and the files are real; time is a clock that the tests move.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import psutil
import pytest
import pytest_asyncio
from onnx import ModelProto, helper

from qubix_coordinator.artifacts.store import ArtifactStore
from qubix_coordinator.db.database import Database, execute, rows
from qubix_coordinator.jobs import describer
from qubix_coordinator.jobs.describer import Describer
from qubix_coordinator.ledger.audit import audit_all_now
from qubix_coordinator.models import rules, service
from qubix_coordinator.models.rules import Outcome
from qubix_kernels.box import machine
from qubix_kernels.onnx.frames import DescribeDone, DescribeTask
from qubix_kernels.onnx.signature import decode
from qubix_kernels.tasks import TaskFailed
from qubix_kernels.zygote import Zygote
from qubix_protocol.arrays import Array, to_npy
from qubix_protocol.models import ModelBody, ModelState, ModelView
from tests.box import test_box_models as bombs
from tests.db.support_http import Person, Running, make_person, served
from tests.kernels.models_world import F32, dense, made
from tests.kernels.test_kernels_onnx import external, external_in_a_constant, field

pytestmark = pytest.mark.asyncio
DEADLINE_S = 60.0
X = np.random.default_rng(3).standard_normal((40, 24), dtype=np.float32)


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    found = machine.found_here()
    assert found.kind == "box", found.reason
    started = Zygote.start(isolation=found, folders=[tmp_path_factory.getbasetemp()])
    try:
        yield started
    finally:
        started.close()


@dataclass
class Lab:
    market: Running
    zygote: Zygote
    folder: Path
    person: Person

    async def upload(self, data: bytes, person: Person | None = None) -> str:
        digest = hashlib.sha256(data).hexdigest()
        async with self.market.client(person or self.person) as client:
            answer = await client.put(f"/api/v1/artifacts/{digest}", content=data)
            assert answer.status_code in (200, 201), answer.text
        return digest

    async def model(self, data: bytes, person: Person | None = None) -> str:
        return await self.upload(to_npy(np.frombuffer(data, np.uint8)), person)

    async def input(self, array: Array, *, sent: bool = True) -> dict[str, Any]:
        body: dict[str, Any] = {"meta": {"dtype": array.dtype.name, "shape": array.shape}}
        return {**body, "digest": await self.upload(to_npy(array))} if sent else body

    async def post(self, person: Person | None = None, **body: Any) -> httpx.Response:
        async with self.market.client(person or self.person) as client:
            return await client.post("/api/v1/models", json=body)

    async def ask(self, person: Person | None = None, **body: Any) -> ModelView:
        answer = await self.post(person, **body)
        assert answer.status_code == 202, answer.text
        return msgspec.json.decode(answer.content, type=ModelView)

    async def read(self, model_id: str, person: Person | None = None) -> httpx.Response:
        async with self.market.client(person or self.person) as client:
            return await client.get(f"/api/v1/models/{model_id}")

    async def work(self, deadline_s: float = DEADLINE_S) -> bool:
        """A verifier's turn."""
        context = self.market.coordinator.context
        store = ArtifactStore.open(context.settings)
        slot = Describer(self.market.db, store, self.zygote, self.folder, deadline_s=deadline_s)
        return await slot.one("v1", context.now_ms)

    async def describe(self, data: bytes, deadline_s: float = DEADLINE_S, **more: Any) -> ModelView:
        asked = await self.ask(digest=await self.model(data), **more)
        assert asked.state is ModelState.WAITING
        assert await self.work(deadline_s)
        return msgspec.json.decode((await self.read(asked.model_id)).content, type=ModelView)


@pytest_asyncio.fixture
async def lab(db: Database, zygote: Zygote, tmp_path: Path) -> AsyncIterator[Lab]:
    data, scratch = tmp_path / "data", tmp_path / "scratch"
    scratch.mkdir()
    async with served(db, data) as market:
        yield Lab(market, zygote, scratch, await make_person(db))


async def age(lab: Lab, ms: int) -> None:
    """As if everything asked so far had been asked so long ago."""
    async with lab.market.db.transaction() as tx:
        await execute(tx, "UPDATE model_description SET asked_ms = asked_ms - $1, due_ms = due_ms - $1", ms)


def waiting(lab: Lab) -> Any:
    async def count() -> int:
        async with lab.market.db.transaction() as tx:
            return len(await rows(tx, "SELECT id FROM model_description WHERE state = 'waiting'"))

    return count()


# What is found out ----------------------------------------------------------------------------------------------------


async def test_a_model_is_described_from_its_file_and_then_with_its_inputs(lab: Lab) -> None:
    data = dense(np.random.default_rng(1))
    found = await lab.describe(data)
    assert (found.state, found.refusal, found.needs) == (ModelState.DESCRIBED, None, ())
    assert found.card is not None
    assert (found.card.size_bytes, found.card.parameters) == (len(data), 1920)
    assert found.work is not None
    assert (found.work.units, found.work.checked_units, found.work.zeros) == (0, 0, True)
    again = await lab.describe(data, inputs={"x": await lab.input(X)})
    assert again.work is not None
    assert (again.work.units, again.work.checked_units, again.work.zeros) == (40, 16, False)
    assert again.work.signature == found.work.signature
    assert decode(again.work.signature).outputs["y"].shape == (16,)
    assert await audit_all_now(lab.market.db, lab.market.coordinator.context.now_ms()) is not None


async def test_the_signature_prices_a_job(lab: Lab) -> None:
    digest = await lab.model(data := dense(np.random.default_rng(1)))
    asked = await lab.ask(digest=digest, inputs={"x": await lab.input(X, sent=False)})
    assert await lab.work()
    found = msgspec.json.decode((await lab.read(asked.model_id)).content, type=ModelView)
    assert found.work is not None
    assert found.work.zeros
    metas = {"x": {"dtype": "float32", "shape": X.shape}, "model": {"dtype": "uint8", "shape": [len(data)]}}
    body = {"kernel": "onnx", "params": {"signature": found.work.signature}, "inputs": metas}
    async with lab.market.client(lab.person) as client:
        answer = await client.post("/api/v1/jobs/estimate", json=body)
    assert answer.status_code == 200, answer.text


async def test_open_shapes_are_named_and_then_given(lab: Lab) -> None:
    dims = (F32, ["n", "length", 4])
    data = bytes(made([helper.make_node("Relu", ["x"], ["y"])], {"x": dims}, {"y": dims}).SerializeToString())
    found = await lab.describe(data)
    assert (found.state, found.needs, found.work) == (ModelState.DECLARED, ("x",), None)
    x = np.ones((5, 7, 4), np.float32)
    again = await lab.describe(data, inputs={"x": await lab.input(x)})
    assert again.state is ModelState.DESCRIBED
    other = await lab.describe(data, inputs={"x": await lab.input(x.astype(np.float64))})
    assert other.refusal is not None
    assert (other.state, other.refusal.code) == (ModelState.REFUSED, "inputs")


async def test_the_same_question_has_one_answer_and_costs_nothing(lab: Lab) -> None:
    data = dense(np.random.default_rng(1))
    first = await lab.describe(data)
    again = await lab.ask(digest=first.digest)
    assert again == first
    assert not await lab.work(), "nothing waits"


async def test_the_live_feed_tells_the_answer(lab: Lab) -> None:
    import websockets

    asked = await lab.ask(digest=await lab.model(dense(np.random.default_rng(1))))
    async with websockets.connect(f"{lab.market.ws}/live", additional_headers=lab.person.headers) as socket:
        await socket.send(json.dumps({"subscribe": [f"model:{asked.model_id}"]}))
        snapshot = json.loads(await socket.recv())
        assert (snapshot["kind"], snapshot["data"]["state"]) == ("snapshot", "waiting")
        assert await lab.work()
        delta = json.loads(await socket.recv())
    assert (delta["kind"], delta["data"]["state"]) == ("delta", "described")
    assert msgspec.convert(delta["data"], ModelView).work is not None


# Whose it is ----------------------------------------------------------------------------------------------------------


async def test_d1_nobody_describes_or_reads_what_is_somebody_elses(lab: Lab, db: Database) -> None:
    data = dense(np.random.default_rng(1))
    mine, other = await lab.describe(data), await make_person(db, name="other")
    assert (await lab.read(mine.model_id, other)).status_code == 404
    assert (await lab.post(other, digest=mine.digest)).status_code == 404, "a digest opens nothing"
    await lab.model(data, other)
    theirs = await lab.ask(other, digest=mine.digest)
    assert theirs.state is ModelState.WAITING, "that somebody else had it described does not show"
    assert theirs.model_id != mine.model_id


async def test_what_is_no_model_as_a_job_takes_it_is_refused_at_once(lab: Lab) -> None:
    data = dense(np.random.default_rng(1))
    for body, name in (
        ({"digest": await lab.upload(data)}, "digest"),
        ({"digest": await lab.upload(to_npy(X))}, "digest"),
        ({"digest": hashlib.sha256(b"not here").hexdigest()}, "digest"),
        ({"digest": await lab.model(data), "inputs": {"x": {**await lab.input(X), "digest": "0" * 64}}}, "inputs.x"),
        ({"digest": "zz"}, "digest"),
        ({"digest": await lab.model(data), "inputs": {"x": {"meta": {"dtype": "object", "shape": [1]}}}}, ""),
        ({"digest": await lab.model(data), "more": 1}, "more"),
    ):
        answer = await lab.post(**body)
        assert answer.status_code in (404, 422), (body, answer.text)
        problem = answer.json()
        assert problem["remedy"]
        assert problem["field"].startswith(name), problem
    assert await waiting(lab) == 0


# Bounds ---------------------------------------------------------------------------------------------------------------


async def test_a_crowd_of_questions_is_refused_and_known_answers_are_not(lab: Lab, db: Database) -> None:
    digest = await lab.model(dense(np.random.default_rng(1)))
    known = await lab.describe(dense(np.random.default_rng(2)))
    for number in range(rules.OPEN_MAX):
        await lab.ask(digest=digest, whole=[f"w{number}"])
    answer = await lab.post(digest=digest)
    assert answer.status_code == 429
    assert answer.json()["remedy"]
    assert int(answer.headers["Retry-After"]) > 0
    assert (await lab.ask(digest=known.digest)).state is ModelState.DESCRIBED
    other = await make_person(db, name="other")
    await lab.model(dense(np.random.default_rng(1)), other)
    assert (await lab.ask(other, digest=digest)).state is ModelState.WAITING, "another account is not held up"


async def test_trials_are_counted_by_the_hour(lab: Lab) -> None:
    digest = await lab.model(dense(np.random.default_rng(1)))
    async with lab.market.db.transaction() as tx:
        await execute(
            tx,
            "INSERT INTO model_description (id, account_id, digest, question, asked, state, asked_ms, due_ms, answer)"
            " SELECT gen_random_uuid(), $1, $2, '{}'::jsonb, sha256(n::text::bytea), 'refused', $3::bigint,"
            " $3::bigint + 1, '{}'::jsonb"
            " FROM generate_series(1, $4) n",
            lab.person.account_id,
            bytes.fromhex(digest),
            lab.market.coordinator.context.now_ms(),
            rules.HOURLY_MAX,
        )
    assert (await lab.post(digest=digest)).status_code == 429
    await age(lab, rules.HOUR_MS)
    assert (await lab.ask(digest=digest)).state is ModelState.WAITING


async def test_m5_a_question_that_nobody_answers_is_given_up_and_may_be_asked_again(lab: Lab) -> None:
    digest = await lab.model(dense(np.random.default_rng(1)))
    first = await lab.ask(digest=digest)
    await age(lab, rules.WAIT_MS)
    found = msgspec.json.decode((await lab.read(first.model_id)).content, type=ModelView)
    assert found.state is ModelState.FAILED
    assert found.refusal is not None
    assert "no verifier" in found.refusal.problem
    assert not await lab.work(), "it waits no more"
    again = await lab.ask(digest=digest)
    assert (again.state, again.model_id) == (ModelState.WAITING, first.model_id)
    assert await lab.work()
    assert (await lab.ask(digest=digest)).state is ModelState.DESCRIBED


async def test_a_verifier_that_dies_with_a_model_takes_no_other_with_it(lab: Lab) -> None:
    asked = await lab.ask(digest=await lab.model(dense(np.random.default_rng(1))))
    now_ms = lab.market.coordinator.context.now_ms
    async with lab.market.db.transaction() as tx:
        claimed = await service.claim(tx, "v0", 5.0, now_ms())
    assert claimed is not None
    assert not await lab.work(), "it is given to nobody else"
    await age(lab, 5_000 + rules.SLACK_MS)
    async with lab.market.db.transaction() as tx:
        assert await service.sweep(tx, now_ms=now_ms()) == 1
        late = await service.record(tx, claimed, "v0", Outcome(ModelState.REFUSED, rules.Answer()))
    assert not late, "what was given up stays so"
    found = (await lab.read(asked.model_id)).json()
    assert (found["state"], found["refusal"]["problem"]) == ("failed", "the verifier process did not answer")


async def test_old_answers_are_forgotten(lab: Lab) -> None:
    found = await lab.describe(dense(np.random.default_rng(1)))
    await age(lab, rules.KEPT_MS + 60_000)
    async with lab.market.db.transaction() as tx:
        await service.sweep(tx, now_ms=lab.market.coordinator.context.now_ms())
    assert (await lab.read(found.model_id)).status_code == 404


# Hostile files --------------------------------------------------------------------------------------------------------


def outside(change: Callable[[ModelProto], object]) -> Callable[[], bytes]:
    def make() -> bytes:
        model = ModelProto.FromString(dense(np.random.default_rng(2), (6, 6)))
        change(model)
        return bytes(model.SerializeToString())

    return make


def bomb_of_messages() -> bytes:
    """Each two bytes become an operation of some hundred bytes in memory."""
    nodes = field(1, b"") * 12_000_000
    return b"\x08\x08" + field(7, nodes) + field(8, b"\x10\x11")


def bomb_of_nesting() -> bytes:
    graph = b""
    for _ in range(5_000):
        graph = field(1, field(5, field(6, graph)))
    return field(7, graph)


def huge_input() -> bytes:
    dims = (F32, ["n", 2**31])
    return bytes(made([helper.make_node("Relu", ["x"], ["y"])], {"x": dims}, {"y": dims}).SerializeToString())


Hostile = tuple[Callable[[], bytes], set[str]]
FILES: list[Hostile] = [
    (lambda: b"PK\x03\x04 not a model", {"not_a_model"}),
    (lambda: np.random.default_rng(4).bytes(4096), {"not_a_model", "version"}),
    (outside(external), {"external_data"}),
    (outside(external_in_a_constant), {"external_data"}),
    (bomb_of_nesting, {"not_a_model"}),
    (huge_input, {"out_of_memory", "crashed"}),
    (bombs.terabytes, {"out_of_memory", "cannot_load", "cannot_run", "crashed"}),
    (bombs.weights_that_are_not_there, {"cannot_load"}),
]
BOMBS: list[Hostile] = [
    (bomb_of_messages, {"too_large", "out_of_memory", "crashed"}),
    (bombs.terabytes_by_the_data, {"out_of_memory", "cannot_run"}),
    (bombs.doubling, {"out_of_memory", "cannot_run", "crashed"}),
    (bombs.endless_loop, {"too_slow", "too_much_work"}),
]


@pytest.mark.parametrize("files", [FILES, pytest.param(BOMBS, marks=pytest.mark.slow)], ids=["files", "bombs"])
async def test_c3_a_hostile_file_ends_in_a_clear_refusal_and_the_next_model_is_described(
    lab: Lab, files: list[Hostile]
) -> None:
    for make, codes in files:
        # One never ends by itself; the others have time on a busy machine, too.
        found = await lab.describe(make(), deadline_s=4.0 if make is bombs.endless_loop else DEADLINE_S)
        assert found.state is ModelState.REFUSED, found
        assert found.refusal is not None
        assert found.refusal.code in codes, found.refusal
        assert found.refusal.problem
        assert found.refusal.remedy
    honest = await lab.describe(dense(np.random.default_rng(1)))
    assert honest.state is ModelState.DESCRIBED
    assert list(lab.folder.iterdir()) == [], "nothing is left behind"


async def test_what_a_worker_says_is_believed_no_further_than_its_form() -> None:
    """A box that was taken over may say anything: no signature that is none becomes an answer."""
    for said, state in (
        ({"signature": "{}"}, ModelState.FAILED),
        ({"signature": '{"mode":"rows","inputs":{},"outputs":{}}'}, ModelState.FAILED),
        ({}, ModelState.FAILED),
    ):
        plain: dict[str, Any] = {"card": None, "signature": "", "needs": (), "refusal": None, "run_ms": 1.0}
        done = DescribeDone(**plain | said)
        assert rules.outcome(done, ModelBody(digest="0" * 64), zeros=True).state is state


async def test_c3_no_word_of_a_worker_ends_its_verifier_or_spoils_the_answer(lab: Lab) -> None:
    """Its errors may carry any text of the file's: the database takes no NUL, and the API no control characters."""
    asked = await lab.ask(digest=await lab.model(dense(np.random.default_rng(1))))
    async with lab.market.db.transaction() as tx:
        claimed = await service.claim(tx, "v1", 5.0, lab.market.coordinator.context.now_ms())
    assert claimed is not None
    said = TaskFailed(code="bad_input", detail="input a\x00b\n\x1b[2J\u202e\ud800" + "x" * 3_000)
    task = DescribeTask(model="", inputs={}, forms={}, whole=())
    found = describer.outcome_of(said, claimed, task, memory_bytes=1)
    async with lab.market.db.transaction() as tx:
        assert await service.record(tx, claimed, "v1", found)
    answer = await lab.read(asked.model_id)
    assert answer.status_code == 200, answer.text
    read = msgspec.json.decode(answer.content, type=ModelView)
    assert read.refusal is not None
    assert read.refusal.problem.startswith("input a b [2J x")


async def test_a_description_that_is_cut_short_leaves_no_worker(lab: Lab) -> None:
    asked = await lab.ask(digest=await lab.model(bombs.endless_loop()))
    turn = asyncio.create_task(lab.work(DEADLINE_S))
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while not (children := psutil.Process(lab.zygote.pid).children()):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert (await asyncio.to_thread(psutil.wait_procs, children, DEADLINE_S))[1] == []
    assert (await lab.read(asked.model_id)).json()["state"] == "waiting"
