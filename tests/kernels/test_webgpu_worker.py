# SPDX-License-Identifier: Apache-2.0
"""A real worker computes through Vulkan: in its box, and as a limited child."""

from pathlib import Path

import numpy as np
import pytest

from qubix_kernels.box import machine, rules
from qubix_kernels.box.machine import Isolation
from qubix_kernels.tasks import ChunkDone, Event, RunDone, TaskFailed
from qubix_kernels.zygote import Zygote
from qubix_protocol.arrays import unpack_arrays
from tests.kernels.webgpu import need_adapter
from tests.kernels.worker_world import Product, hear_all, say


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    need_adapter()
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def said(folder: Path, isolation: Isolation, adapter: str) -> list[Event]:
    zygote = Zygote.start(folders=[folder], isolation=isolation, gpu=rules.graphics("wgpu-1", adapter, "", ()))
    try:
        worker = zygote.fork(scratch=folder, out=folder, limits=rules.Limits(address_space=False))
        with worker.sock:
            say(worker.sock, Product(folder, rows=12).run(backend="webgpu", chunk_units=6, target_s=1e6))
            return hear_all(worker.sock)
    finally:
        zygote.close()


@pytest.mark.parametrize("kind", ["box", "limited"])
def test_a_confined_worker_runs_chunks_on_the_card(kind: str, folder: Path) -> None:
    isolation = machine.found_here() if kind == "box" else Isolation("limited", "a test wants it")
    *chunks, last = said(folder, isolation, "llvmpipe")
    assert isinstance(last, RunDone), last
    answer = Product(folder, rows=12).answer
    for chunk, (start, stop) in zip(chunks, [(0, 6), (6, 12)], strict=True):
        assert isinstance(chunk, ChunkDone)
        found = unpack_arrays(Path(chunk.path).read_bytes())["c"]
        np.testing.assert_allclose(found, answer[start:stop], rtol=0, atol=1e-4)


def test_a_worker_whose_card_is_not_there_says_so(folder: Path) -> None:
    (word,) = said(folder, machine.found_here(), "A Card of Nobody's")
    assert isinstance(word, TaskFailed)
    assert word.detail.startswith("NoDevice: no card can be used")
