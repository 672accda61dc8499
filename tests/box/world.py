# SPDX-License-Identifier: Apache-2.0
"""A boxed zygote for hostile workers: makes attempts, tells how they ended, and sees that all is well afterwards."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from qubix_kernels.box.machine import Isolation
from qubix_kernels.box.rules import Limits
from qubix_kernels.tasks import ChunkDone, RunDone
from qubix_kernels.wire import Reply
from qubix_kernels.zygote import Worker, Zygote
from qubix_protocol.arrays import unpack_arrays
from tests.kernels.worker_world import DEADLINE_S, Product, hear_all, hear_bytes, say

INSIDE = Path(__file__).parent / "inside"
sys.path.append(str(INSIDE))

import hostile  # type: ignore[import-not-found]  # noqa: E402  the same module that the worker runs

MIB = 1024**2
WALL_S = 20.0
"""Of every attempt: what is not stopped by another limit fails the test by this one's cause."""


class Lair:
    """`mine` is the attempt's own folder, `others` another job's; `secret` lies outside of everything."""

    def __init__(self, folder: Path, isolation: Isolation, serve: str = "hostile:serve") -> None:
        self.folder = folder
        self.shown = folder / "shown"
        self.mine, self.others = self.shown / "mine", self.shown / "others"
        self.out = self.mine / "out"
        self.secret = folder / "node.key"
        for path in (self.out, self.others):
            path.mkdir(parents=True)
        self.secret.write_text("secret")
        (self.others / "input").write_text("another's")
        self.honest = Product(self.mine, rows=16)
        self.honest.out = self.out
        self.zygote = Zygote.start(
            folders=[self.shown],
            isolation=isolation,
            readable=[INSIDE],
            environment={"PYTHONPATH": str(INSIDE)},
            serve=serve,
        )

    def close(self) -> None:
        self.zygote.close()

    def fork(self, **limits: Any) -> Worker:
        known = {"memory_bytes": 1024 * MIB, "cpu_s": 10, "wall_s": WALL_S, "disk_bytes": 64 * MIB}
        return self.zygote.fork(scratch=self.mine, out=self.out, limits=Limits(**known | limits))

    def attempt(self, name: str, *words: Any, **limits: Any) -> tuple[Any, Reply]:
        """What came of it (None: it was ended before it could say) and how the worker ended."""
        worker = self.fork(**limits)
        with worker.sock:
            say(worker.sock, hostile.Probe(name=name, words=words))
            body = hear_bytes(worker.sock)
        return hostile.msgspec.msgpack.decode(body, type=hostile.Outcome) if body else None, self.end(worker)

    def end(self, worker: Worker) -> Reply:
        until(lambda: self.zygote.status(worker) is not None)
        return self.zygote.end_of(worker)

    def check_health(self) -> None:
        """The same zygote runs the next honest job, nothing of the last one is left, and its folder can be emptied."""
        for path in self.out.iterdir():
            path.unlink()
        worker = self.fork()
        with worker.sock:
            say(worker.sock, self.honest.run(chunk_units=16))
            chunk, done = hear_all(worker.sock)
        assert isinstance(chunk, ChunkDone)
        assert isinstance(done, RunDone)
        product = unpack_arrays(Path(chunk.path).read_bytes())["c"]
        assert abs(product - self.honest.answer).max() < 1e-3
        assert self.end(worker).status == 0
        until(lambda: psutil.Process(self.zygote.pid).children() == [])
        assert self.secret.read_text() == "secret"
        assert (self.others / "input").read_text() == "another's"
        assert os.listdir(self.others) == ["input"]
        assert set(os.listdir(self.mine)) <= {"a.npy", "b.npy", "out", "tmp"}
        Path(chunk.path).unlink()


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.005)


def killed(end: Reply) -> bool:
    return end.status == -signal.SIGKILL
