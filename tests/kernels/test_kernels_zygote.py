# SPDX-License-Identifier: Apache-2.0
"""Real workers of a real zygote: what they may use, how they end, and that nothing of them stays behind."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

from qubix_kernels.box import machine
from qubix_kernels.box.machine import Isolation
from qubix_kernels.box.rules import Limits
from qubix_kernels.tasks import ChunkDone, RunDone, TaskFailed, VerifyDone
from qubix_kernels.zygote import Worker, Zygote, ZygoteDied
from qubix_protocol.arrays import to_npy
from tests.kernels.worker_world import DEADLINE_S, Product, hear_all, say

MIB = 1024 * 1024


@pytest.fixture(scope="module", params=["box", "limited"])
def isolation(request: pytest.FixtureRequest) -> Isolation:
    found = machine.found_here()
    assert found.kind == "box", found.reason
    return found if request.param == "box" else Isolation("limited", "for this test")


@pytest.fixture(scope="module")
def zygote(isolation: Isolation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    made = Zygote.start(isolation=isolation, folders=[tmp_path_factory.getbasetemp()])
    yield made
    made.close()


@pytest.fixture
def product(tmp_path: Path) -> Product:
    return Product(tmp_path, rows=50)


@contextlib.contextmanager
def own_zygote(isolation: Isolation, folder: Path, **options: Any) -> Iterator[Zygote]:
    made = Zygote.start(isolation=isolation, folders=[folder], **options)
    try:
        yield made
    finally:
        made.close()


def fork(zygote: Zygote, folder: Path, **limits: Any) -> Worker:
    return zygote.fork(scratch=folder, out=folder, limits=Limits(**limits))


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.005)


def status_of(zygote: Zygote, worker: Worker) -> int:
    until(lambda: zygote.status(worker) is not None)
    status = zygote.status(worker)
    assert status is not None
    return status


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def fds_of(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def endless(product: Product) -> Product:
    """Hours of work from small files."""
    for name, shape in (("queries", (200_000, 4)), ("data", (100_000, 4))):
        path = product.folder / f"{name}.npy"
        path.write_bytes(to_npy(np.ones(shape, np.float32)))
    product.inputs = {name: str(product.folder / f"{name}.npy") for name in ("queries", "data")}
    return product


ENDLESS = {"kernel": "knn", "params": {"k": 3}, "chunk_units": 200_000}


def test_a_worker_runs_and_another_one_checks_it(zygote: Zygote, product: Product) -> None:
    first = fork(zygote, product.folder)
    with first.sock:
        say(first.sock, product.run(chunk_units=50))
        chunk, done = hear_all(first.sock)
    assert isinstance(chunk, ChunkDone)
    assert isinstance(done, RunDone)
    second = fork(zygote, product.folder)
    with second.sock:
        say(second.sock, product.verify(product.part(0, 50)))
        (verdict,) = hear_all(second.sock)
    assert isinstance(verdict, VerifyDone)
    assert verdict.accepted
    assert [status_of(zygote, worker) for worker in (first, second)] == [0, 0]


def test_a_worker_knows_nothing_of_its_parents_environment(
    isolation: Isolation, monkeypatch: pytest.MonkeyPatch, product: Product
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("HOME", "/nonexistent")
    with own_zygote(isolation, product.folder, threads=2, environment={"QUBIX_EXTRA": "seen"}) as zygote:
        worker = fork(zygote, product.folder)
        with worker.sock:
            for pid in (zygote.pid, worker.pid):
                seen = dict(word.split("=", 1) for word in Path(f"/proc/{pid}/environ").read_text().split("\0") if word)
                threads = dict.fromkeys(
                    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "2"
                )
                where = {"PWD": "/"} if isolation.kind == "box" else {}
                assert seen == threads | where | {"QUBIX_EXTRA": "seen", "CUDA_VISIBLE_DEVICES": ""}
            until(lambda: os.readlink(f"/proc/{worker.pid}/cwd") == str(product.folder.resolve()))


def test_a_worker_holds_only_its_own_socket_and_the_standard_streams(zygote: Zygote, product: Product) -> None:
    worker = fork(zygote, product.folder)
    with worker.sock:
        until(lambda: os.readlink(f"/proc/{worker.pid}/cwd") == str(product.folder.resolve()))
        until(lambda: len(set(os.listdir(f"/proc/{worker.pid}/fd")) - {"0", "1", "2"}) == 1)


def test_a_killed_worker_says_so_and_killing_again_is_nothing(zygote: Zygote, product: Product) -> None:
    worker = fork(zygote, product.folder)
    with worker.sock:
        assert zygote.status(worker) is None
        zygote.kill(worker)
        assert status_of(zygote, worker) == -signal.SIGKILL
        assert worker.sock.recv(1) == b""
        zygote.kill(worker)
        zygote.kill(msgspec.structs.replace(worker, number=os.getpid()))  # not a worker: nothing


def test_a_worker_that_is_left_alone_ends(zygote: Zygote, product: Product) -> None:
    worker = fork(zygote, product.folder)
    worker.sock.close()
    assert status_of(zygote, worker) == 1


def test_a_worker_whose_parent_leaves_in_the_middle_ends_at_its_next_word(zygote: Zygote, product: Product) -> None:
    worker = fork(zygote, product.folder)
    say(worker.sock, product.run(*(((0, 50),) * 2000), chunk_units=1))
    assert worker.sock.recv(1)
    worker.sock.close()
    assert status_of(zygote, worker) == 1


def test_more_memory_than_allowed_is_told(zygote: Zygote, tmp_path: Path) -> None:
    large = Product(tmp_path, rows=20_000, inner=1, columns=20_000)  # 1.6 GB of output
    worker = fork(zygote, tmp_path, memory_bytes=1024 * MIB)
    with worker.sock:
        say(worker.sock, large.run(chunk_units=20_000))
        (failed,) = hear_all(worker.sock)
    assert isinstance(failed, TaskFailed)
    assert failed.code == "out_of_memory"
    assert status_of(zygote, worker) == 0


def test_more_time_on_the_processor_than_allowed_ends_it(zygote: Zygote, product: Product) -> None:
    worker = fork(zygote, product.folder, cpu_s=1)
    with worker.sock:
        say(worker.sock, endless(product).run((0, 200_000), **ENDLESS))
        assert hear_all(worker.sock) == []
    assert status_of(zygote, worker) in (-signal.SIGXCPU, -signal.SIGKILL)
    assert zygote.end_of(worker).cause == "processor"


def test_a_scratch_folder_that_is_missing_costs_the_worker_alone(zygote: Zygote, product: Product) -> None:
    worker = fork(zygote, product.folder / "absent")
    with worker.sock:
        assert status_of(zygote, worker) == 1
    with fork(zygote, product.folder).sock as sock:
        say(sock, product.verify(product.part(0, 50)))
        assert len(hear_all(sock)) == 1


def test_many_workers_leave_neither_zombies_nor_descriptors(zygote: Zygote, product: Product) -> None:
    before = fds_of(), fds_of(zygote.pid)
    workers = [fork(zygote, product.folder) for _ in range(50)]
    task = product.verify(product.part(0, 50))
    for worker in workers:
        say(worker.sock, task)
    for worker in workers:
        assert len(hear_all(worker.sock)) == 1
        worker.sock.close()
    assert [status_of(zygote, worker) for worker in workers] == [0] * 50
    assert psutil.Process(zygote.pid).children() == []
    assert (fds_of(), fds_of(zygote.pid)) == before


def test_closing_ends_working_workers_too(isolation: Isolation, product: Product) -> None:
    zygote = Zygote.start(isolation=isolation, folders=[product.folder])
    worker = fork(zygote, product.folder)
    with worker.sock:
        say(worker.sock, endless(product).run((0, 200_000), **ENDLESS))
        zygote.close()
        assert not psutil.pid_exists(worker.pid)
        assert not psutil.pid_exists(zygote.pid)
        with pytest.raises(ZygoteDied):
            fork(zygote, product.folder)


def test_a_killed_zygote_takes_its_workers_along_and_is_reported(isolation: Isolation, product: Product) -> None:
    zygote = Zygote.start(isolation=isolation, folders=[product.folder])
    worker = fork(zygote, product.folder)
    try:
        with worker.sock:
            say(worker.sock, endless(product).run((0, 200_000), **ENDLESS))
            os.kill(zygote.pid, signal.SIGKILL)
            until(lambda: is_gone(worker.pid))
            with contextlib.suppress(ConnectionResetError):  # it was killed before it read its task
                assert worker.sock.recv(1) == b""
        before = fds_of()
        for call in (lambda: fork(zygote, product.folder), lambda: zygote.kill(worker), lambda: zygote.status(worker)):
            with pytest.raises(ZygoteDied):
                call()
        assert fds_of() == before
    finally:
        zygote.close()


PARENT = """
import sys, time
from pathlib import Path
from qubix_kernels.zygote import Zygote
from qubix_kernels.box.machine import Isolation, found_here
folder = Path(sys.argv[1])
zygote = Zygote.start(folders=[folder], isolation=found_here() if sys.argv[2] == "box" else Isolation("limited", ""))
worker = zygote.fork(scratch=folder, out=folder)
print(zygote.pid, worker.pid, flush=True)
time.sleep(600)
"""


def test_a_killed_parent_leaves_neither_zygote_nor_worker(isolation: Isolation, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path), isolation.kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert not any(is_gone(pid) for pid in pids)
        parent.kill()
        parent.wait(DEADLINE_S)
        for pid in pids:
            until(lambda pid=pid: is_gone(pid))  # type: ignore[misc]


def test_a_start_that_fails_leaves_nothing_behind(isolation: Isolation, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit(3)\n")
    before = fds_of(), psutil.Process().children()
    with pytest.raises(ZygoteDied):
        Zygote.start(isolation=isolation, environment={"PYTHONPATH": str(tmp_path)}, readable=[tmp_path])
    assert (fds_of(), psutil.Process().children()) == before


def test_a_late_answer_is_never_taken_for_the_next_ones() -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(0.01)
    with theirs, subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        zygote = Zygote(process, ours, boxed=False)
        with pytest.raises(ZygoteDied, match="does not answer"):
            zygote.status(Worker(7, 7, ours))
        with pytest.raises(ZygoteDied):
            zygote.status(Worker(8, 8, ours))
        assert theirs.recv(4096)  # the first question alone
        assert theirs.recv(4096) == b""
        process.kill()
        zygote.close()
