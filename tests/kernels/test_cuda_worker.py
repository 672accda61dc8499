# SPDX-License-Identifier: Apache-2.0
"""A real worker, in its box where there is one, carries out jobs on a CUDA back end: in the simulator, and without."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qubix_kernels.tasks import ChunkDone, Event, Part, RunDone, TaskFailed, VerifyDone
from qubix_kernels.zygote import Zygote
from qubix_protocol.arrays import unpack_arrays
from tests.kernels.worker_world import Product, hear_all, say


def events(zygote: Zygote, folder: Path, task: Any) -> list[Event]:
    worker = zygote.fork(scratch=folder, out=folder)
    with worker.sock:
        say(worker.sock, task)
        return hear_all(worker.sock)


@pytest.fixture(scope="module")
def simulating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    made = Zygote.start(folders=[tmp_path_factory.getbasetemp()], environment={"NUMBA_ENABLE_CUDASIM": "1"})
    yield made
    made.close()


@pytest.fixture
def product(tmp_path: Path) -> Product:
    return Product(tmp_path, rows=12)


def test_a_boxed_worker_runs_chunks_on_the_device_and_its_check_accepts_them(
    simulating: Zygote, product: Product
) -> None:
    *chunks, last = events(simulating, product.folder, product.run(backend="cuda", chunk_units=6, target_s=1e6))
    assert isinstance(last, RunDone), last
    parts = []
    for chunk in chunks:
        assert isinstance(chunk, ChunkDone)
        c = unpack_arrays(Path(chunk.path).read_bytes())["c"]
        np.testing.assert_allclose(c, product.answer[chunk.start : chunk.stop], rtol=0, atol=1e-4)
        parts.append(Part(start=chunk.start, stop=chunk.stop, path=chunk.path))
    assert [(part.start, part.stop) for part in parts] == [(0, 6), (6, 12)]
    (verdict,) = events(simulating, product.folder, product.verify(*parts))
    assert isinstance(verdict, VerifyDone)
    assert verdict.accepted


def test_a_worker_without_a_device_says_so(tmp_path: Path, product: Product) -> None:
    zygote = Zygote.start(folders=[tmp_path], environment={"CUDA_VISIBLE_DEVICES": "-1"})
    try:
        (said,) = events(zygote, product.folder, product.run(backend="cuda"))
    finally:
        zygote.close()
    assert isinstance(said, TaskFailed)
    assert said.code == "kernel_error"
    assert said.detail.startswith("NoDevice: no CUDA device can be used: ")
