# SPDX-License-Identifier: Apache-2.0
"""What the box costs: from the request to the first event of a tiny task, beside a bare fork and a limited child."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.figures import Figure, beside
from qubix_kernels.box import machine
from qubix_kernels.box.machine import Isolation
from qubix_kernels.tasks import RunTask, encode_frame
from qubix_kernels.zygote import Zygote
from qubix_protocol.arrays import to_npy

_REPEATS = 60
_AIM_MS = 15.0


def run() -> list[Figure]:
    found = machine.found_here()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = _tiny(folder)
        zygotes = [Zygote.start(folders=[folder], isolation=one) for one in (found, Isolation("limited", "beside"))]
        try:
            # In turns, so that all meet the same noise.
            ways: list[Callable[[], None]] = [lambda z=z: _first_event(z, folder, task) for z in zygotes]  # type: ignore[misc]
            boxed, limited, bare = _medians_ms([*ways, _bare_fork])
        finally:
            for zygote in zygotes:
                zygote.close()
        start_s = [_start_s(folder, one) for one in (found, Isolation("limited", "beside"))]
    over = boxed - bare
    return [
        beside("boxed start to first event", boxed, "ms", limit=limited, limit_name="limited child"),
        Figure(
            name="boxed start over a bare fork",
            value=over,
            unit="ms",
            beside="bare fork of a NumPy process",
            limit=bare,
            aim=f"≤ {_AIM_MS:g} ms",
            met=found.kind == "box" and over <= _AIM_MS,
            note=found.reason,
        ),
        beside(
            "a zygote in its box, warm", start_s[0] * 1000, "ms", limit=start_s[1] * 1000, limit_name="without a box"
        ),
    ]


def _tiny(folder: Path) -> bytes:
    (folder / "out").mkdir()
    for name in "ab":
        (folder / f"{name}.npy").write_bytes(to_npy(np.ones((4, 4), np.float32)))
    return encode_frame(
        RunTask(
            kernel="matmul",
            backend="cpu",
            params={},
            inputs={name: str(folder / f"{name}.npy") for name in "ab"},
            ranges=((0, 4),),
            chunk_units=4,
            out_dir=str(folder / "out"),
        )
    )


def _first_event(zygote: Zygote, folder: Path, task: bytes) -> None:
    worker = zygote.fork(scratch=folder, out=folder / "out")
    with worker.sock:
        worker.sock.sendall(task)
        assert worker.sock.recv(4)


def _bare_fork() -> None:
    """Of this process, which has imported NumPy as well, to the child's first byte."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write_end, b"x")
        os._exit(0)
    os.read(read_end, 1)
    os.close(read_end)
    os.close(write_end)
    os.waitpid(pid, 0)


def _medians_ms(ways: list[Callable[[], None]]) -> list[float]:
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(_REPEATS):
        for way, taken in zip(ways, times, strict=True):
            began = time.perf_counter()
            way()
            taken.append((time.perf_counter() - began) * 1000)
            time.sleep(0.01)  # the last one is gone before the next begins
    return [statistics.median(taken) for taken in times]


def _start_s(folder: Path, isolation: Isolation) -> float:
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        zygote = Zygote.start(folders=[folder], isolation=isolation)
        taken.append(time.perf_counter() - began)
        zygote.close()
    return statistics.median(taken)
