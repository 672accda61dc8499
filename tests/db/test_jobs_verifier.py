# SPDX-License-Identifier: Apache-2.0
"""The verifier on real data: real artifacts, a real kernel, a forked worker; and what dying in the middle costs."""

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import pytest_asyncio

from qubix_coordinator.artifacts.store import ArtifactStore
from qubix_coordinator.db.database import Database, plain_connection
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.jobs import verify
from qubix_coordinator.jobs.checker import Checker
from qubix_coordinator.jobs.verify_process import Verifier
from qubix_coordinator.jobs.verify_settings import VerifierSettings, from_mappings
from qubix_coordinator.settings import Settings
from qubix_kernels.zygote import Zygote
from qubix_protocol import digests
from qubix_protocol.api import InputBody, JobView
from qubix_protocol.arrays import Array, ArrayMeta, pack_arrays, to_npy
from qubix_protocol.messages import KernelRate, Link, Range
from qubix_protocol.settings import SettingsError
from qubix_protocol.states import JobState, Reason
from tests.db.jobs_world import Node, World
from tests.support_pg import clean_environment

ROWS = 64


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    started = Zygote.start(folders=[tmp_path_factory.getbasetemp()])
    try:
        yield started
    finally:
        started.close()


class Lab:
    """A job whose data is really there."""

    def __init__(self, world: World, node: Node, store: ArtifactStore, checker: Checker, folder: Path) -> None:
        self.world, self.node, self.store, self.folder = world, node, store, folder
        self.verifier = Verifier(world.db, checker, "v1", world.desk.now_ms)
        rng = np.random.default_rng(7)
        self.inputs = {
            "a": rng.standard_normal((ROWS, 32), dtype=np.float32),
            "b": rng.standard_normal((32, 48), dtype=np.float32),
        }
        self.product = self.inputs["a"] @ self.inputs["b"]

    async def keep(self, data: bytes, meta: ArrayMeta | None, *, writer: str | None = None) -> bytes:
        digest, staged = hashlib.sha256(data).digest(), self.folder / os.urandom(8).hex()
        staged.write_bytes(data)
        await self.store.finish_upload(self.world.consumer.account_id, digest, len(data), staged)
        await self.world.store(digest, len(data), meta, writer=writer)
        return digest

    async def submit(self) -> JobView:
        bodies = {}
        for name, array in self.inputs.items():
            data, meta = to_npy(array), ArrayMeta.of(array)
            digest = await self.keep(data, meta)
            bodies[name] = InputBody(digest=digest.hex(), size_bytes=len(data), meta=meta)
        view = await self.world.submit(inputs=bodies)
        await self.world.engine.tick()
        await self.node.accept()
        return view

    async def deliver(self, start: int, stop: int, rows: Array) -> None:
        data = pack_arrays({"c": rows})
        await self.deliver_bytes(start, stop, data)

    async def deliver_bytes(self, start: int, stop: int, data: bytes) -> None:
        digest = await self.keep(data, None, writer=str((await self.node.attempt()).id))
        link = Link(
            index=len(self.node.links),
            units=Range(start, stop),
            output_digest=digest,
            output_bytes=len(data),
            claimed_ms=5,
            predecessor=self.node.head,
        )
        await self.node.send(link)
        self.node.links.append(link)
        self.node.head = digests.of_link(link)

    async def settle(self) -> None:
        await self.node.report()
        assert await self.verifier.one()
        await self.world.engine.tick()


@pytest_asyncio.fixture
async def lab(db: Database, zygote: Zygote, tmp_path: Path) -> AsyncIterator[Lab]:
    world = await World(db).open()
    store = ArtifactStore.open(Settings(data_dir=tmp_path))
    rate = KernelRate(kernel="matmul", backend="cpu", flops_per_s=1e6, bytes_per_s=1e9)
    yield Lab(world, await world.node(rates=(rate,)), store, Checker(store, zygote, tmp_path, deadline_s=60), tmp_path)


@pytest.mark.asyncio
async def test_an_honest_result_is_accepted_and_paid(lab: Lab) -> None:
    view = await lab.submit()
    await lab.deliver(0, 40, lab.product[:40])
    await lab.deliver(40, ROWS, lab.product[40:])
    await lab.settle()
    job = await lab.world.job(view.job_id)
    assert (job.state, job.units_accepted) == (JobState.SETTLED, ROWS)
    assert job.paid_qu + job.fee_qu >= 1
    assert not await lab.verifier.one()


def spoilt(product: Array, how: str) -> Array:
    wrong = product[40:].copy()
    if how == "one_percent":
        wrong[3, 5] += 0.01 * np.sqrt(np.mean(product**2))
    elif how == "nan":
        wrong[3, 5] = np.nan
    elif how == "zeros":
        wrong[:] = 0
    else:
        wrong = wrong.astype(np.float16)
    return wrong


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["one_percent", "nan", "zeros", "float16"])
async def test_a_wrong_chunk_is_found_and_blamed_alone(lab: Lab, how: str) -> None:
    view = await lab.submit()
    await lab.deliver(0, 40, lab.product[:40])
    await lab.deliver(40, ROWS, spoilt(lab.product, how))
    await lab.settle()
    job = await lab.world.job(view.job_id)
    (attempt,) = job.attempts
    assert (attempt.reason, attempt.verdict, attempt.units_accepted) == (Reason.WRONG_RESULT, "rejected", 40)
    assert job.state is JobState.QUEUED
    found = await lab.world.db.fetch("SELECT parts, octet_length(seed) AS seed FROM verdict")
    assert found == [{"parts": [True, False], "seed": 32}]


@pytest.mark.asyncio
async def test_rubbish_instead_of_arrays_is_a_wrong_result(lab: Lab) -> None:
    view = await lab.submit()
    await lab.deliver_bytes(0, ROWS, b"\xc1 this is no MessagePack")
    await lab.settle()
    (attempt,) = (await lab.world.job(view.job_id)).attempts
    assert (attempt.reason, attempt.paid_qu) == (Reason.WRONG_RESULT, 0)


@pytest.mark.asyncio
async def test_bytes_that_are_not_there_are_nobodys_fault(lab: Lab) -> None:
    """The store lost an object: the check is not carried out, and the provider is not blamed."""
    view = await lab.submit()
    await lab.deliver(0, ROWS, lab.product)
    name = lab.store.name(lab.world.consumer.account_id, lab.node.links[0].output_digest)
    (lab.folder / "artifacts" / name).unlink()
    await lab.settle()
    (attempt, *_) = (await lab.world.job(view.job_id)).attempts
    assert (attempt.reason, attempt.verdict) == (Reason.CHECK_FAILED, "unchecked")


@pytest.mark.asyncio
async def test_a_verifier_that_dies_loses_its_claim_and_nothing_else(lab: Lab) -> None:
    world, db = lab.world, lab.world.db
    view = await lab.submit()
    await lab.deliver(0, ROWS, lab.product)
    await lab.node.report()
    dead = await db.run(lambda tx: verify.claim(tx, "dead", world.desk.now_ms()))
    assert dead is not None
    assert not await lab.verifier.one()
    await world.pass_time(verify.CLAIM_MS / 1000, step_s=verify.CLAIM_MS / 1000)
    assert await lab.verifier.one()
    await world.engine.tick()
    assert (await world.job(view.job_id)).state is JobState.SETTLED
    # The dead one's late word is no second verdict.
    late = verify.Finding(
        carried_out=True, accepted=False, reason="late", detail="", parts=(False,), seed=b"", check_ms=0
    )
    assert not await db.run(lambda tx: verify.record(tx, dead.attempt_id, "dead", late, world.desk.now_ms()))
    assert not await db.run(lambda tx: verify.keep(tx, dead, "dead", world.desk.now_ms()))


@pytest.mark.asyncio
async def test_a_verifier_hears_whether_its_verdict_is_the_one_that_stands(lab: Lab) -> None:
    world, db = lab.world, lab.world.db
    await lab.submit()
    await lab.deliver(0, ROWS, lab.product)
    await lab.node.report()
    claim = await db.run(lambda tx: verify.claim(tx, "v", world.desk.now_ms()))
    assert claim is not None
    found = verify.Finding(
        carried_out=True, accepted=True, reason="ok", detail="", parts=(True,), seed=bytes(32), check_ms=1
    )
    told = [
        await db.run(lambda tx: verify.record(tx, claim.attempt_id, "v", found, world.desk.now_ms())) for _ in range(2)
    ]
    assert told == [True, False]


class StuckStore(ArtifactStore):
    async def copy_to(self, account_id: UUID, digest: bytes, path: Path) -> None:
        await asyncio.Event().wait()


@pytest.mark.asyncio
async def test_a_check_without_end_is_given_up(lab: Lab, zygote: Zygote) -> None:
    checker = Checker(StuckStore.open(Settings(data_dir=lab.folder)), zygote, lab.folder, deadline_s=0.05)
    lab.verifier = Verifier(lab.world.db, checker, "v1", lab.world.desk.now_ms)
    view = await lab.submit()
    await lab.deliver(0, ROWS, lab.product)
    await lab.settle()
    (attempt, *_) = (await lab.world.job(view.job_id)).attempts
    assert attempt.reason is Reason.CHECK_FAILED
    assert "longer than" in attempt.detail


@pytest.mark.asyncio
async def test_outputs_open_to_their_owner_once_they_are_paid(lab: Lab) -> None:
    view = await lab.submit()
    await lab.deliver(0, ROWS, lab.product)
    await lab.settle()
    (part,) = (await jobs.result(lab.world.desk, lab.world.consumer, view.job_id)).parts
    target = lab.folder / "mine"
    await lab.store.copy_to(lab.world.consumer.account_id, bytes.fromhex(part.digest), target)
    assert hashlib.sha256(target.read_bytes()).hexdigest() == part.digest


def test_the_verifier_reads_both_tables() -> None:
    toml = {"coordinator": {"fee_bps": 100}, "verifier": {"verifier_parallel": 3}}
    found = from_mappings({"QUBIX_VERIFIER_THREADS": "2"}, toml)
    assert isinstance(found, VerifierSettings)
    assert (found.fee_bps, found.verifier_parallel, found.verifier_threads) == (100, 3, 2)
    with pytest.raises(SettingsError, match="verifier_paralel"):
        from_mappings({}, {"verifier": {"verifier_paralel": 3}})


def left_by_a_killed_one(folder: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left = folder / f"{socket.gethostname()}.{int(dead.stdout)}"
    left.mkdir(parents=True)
    (left / "input-0.npy").write_bytes(b"a consumer's")


@pytest.mark.asyncio
async def test_the_process_says_when_it_is_ready_and_stops_when_told(database_url: str, tmp_path: Path) -> None:
    left_by_a_killed_one(tmp_path / "checks")
    read_fd, write_fd = os.pipe()
    env = clean_environment(DATABASE_URL=database_url, QUBIX_DATA_DIR=str(tmp_path), QUBIX_READY_FD=str(write_fd))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "qubix_coordinator.jobs.verify_process", env=env, pass_fds=(write_fd,)
    )
    os.close(write_fd)
    try:
        with os.fdopen(read_fd) as pipe:
            ready = json.loads(await asyncio.wait_for(asyncio.to_thread(pipe.readline), 60))
        assert ready == {"process": "verifier", "pid": process.pid}
        assert os.listdir(tmp_path / "checks") == [f"{socket.gethostname()}.{process.pid}"], "a killed one's is gone"
        connection = await plain_connection(database_url)
        assert await connection.fetchval("SELECT process_id FROM verifier") == process.pid
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
        assert await connection.fetchval("SELECT count(*) FROM verifier") == 0
        assert os.listdir(tmp_path / "checks") == []
        await connection.close()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.asyncio
async def test_bad_settings_end_the_process_with_status_2() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "qubix_coordinator.jobs.verify_process",
        env=clean_environment(QUBIX_VERIFIER_PARALLEL="many"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert b"QUBIX_VERIFIER_PARALLEL" in said
