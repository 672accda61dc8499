# SPDX-License-Identifier: Apache-2.0
"""What only a real card can tell: whole grids at odd sizes, memory that is as others left it, a worker in its box.

The conformance suite runs on the card by itself (tests/kernels/card.py).
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from qubix_kernels.box.machine import found_here
from qubix_kernels.box.rules import Gpu, nvidia
from qubix_kernels.tasks import ChunkDone, Part, RunDone, VerifyDone, WipeDone, WipeTask
from qubix_kernels.trial import rules
from qubix_kernels.zygote import Zygote
from tests.card.trial_on_card import DEVICE, KEY, SEED, SHAPE
from tests.kernels.conformance import knn, matmul
from tests.kernels.conformance.world import Job
from tests.kernels.simulator import ROOT, Card
from tests.kernels.worker_world import Product, hear_all, say


@pytest.fixture(scope="module")
def card() -> Iterator[Card]:
    with Card() as started:
        yield started


def program(*words: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "0"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def paths(lanes: int, each: int) -> Job:
    market = {"spot": 100.0, "strike": 105.0, "volatility": 0.3, "maturity": 1.5, "seed": 7}
    return Job.of("montecarlo_option", lanes=lanes, paths_per_lane=each, **market)


def window(width: int, height: int, iterations: int) -> Job:
    place = {"left": -2.25, "top": 1.5, "pixel": 3.0 / width}
    return Job.of("mandelbrot", width=width, height=height, max_iterations=iterations, **place)


JOBS: dict[str, Callable[[], Job]] = {
    "wide tiles at odd sizes": lambda: matmul.job(2049, 515, 2047, 1),
    "wide tiles, many steps": lambda: matmul.job(1031, 4099, 1543, 2, kind=matmul.badly_scaled),
    "halves": lambda: matmul.job(2049, 515, 1795, 3, dtype="float16"),
    "doubles": lambda: matmul.job(1031, 517, 771, 4, dtype="float64"),
    "a row of a large matrix": lambda: matmul.job(1, 3001, 2003, 5),
    "few neighbours of many": lambda: knn.job(1500, 30_001, 33, 10, 6),
    "many neighbours": lambda: knn.job(130, 20_003, 300, 500, 7),
    "ties": lambda: knn.job(200, 5_000, 3, 12, 8, knn.with_ties),
    "the whole set": lambda: window(1501, 1103, 700),
    "long lanes": lambda: paths(1003, 16_384),
    "short lanes": lambda: paths(20_001, 33),
}


@pytest.mark.parametrize("title", JOBS)
def test_a_job_that_fills_the_card_is_accepted_and_comes_out_the_same_again(title: str, card: Card) -> None:
    """A result that changes from run to run is a race."""
    job = JOBS[title]()
    first = card.run(job.kernel.spec.name, job.inputs, job.params)
    assert job.verdict(first).accepted, job.verdict(first)
    for _ in range(3):
        again = card.run(job.kernel.spec.name, job.inputs, job.params)
        for name, array in first.items():
            np.testing.assert_array_equal(again[name], array)


POISONED = """
import sys
import numpy as np
from qubix_kernels import cuda, get
from qubix_kernels.kernel import metas_of
kernel = get(sys.argv[1])
inputs, params = kernel.example(np.random.default_rng(3), 500)
kernel.warm_up("cuda", metas_of(inputs), params)
for _ in range(2):
    blocks = [cuda.send(np.full(1 << 22, 0xFF, np.uint8)) for _ in range(64)]
    del blocks
    cuda.cuda.current_context().deallocations.clear()
    verdict = kernel.verify(inputs, params, kernel.run("cuda", inputs, params), np.random.default_rng(0))
    print(verdict.accepted, verdict.detail)
"""


@pytest.mark.parametrize("name", ["matmul", "knn", "mandelbrot", "montecarlo_option"])
def test_every_element_is_written_whatever_was_in_memory(name: str) -> None:
    assert program("-c", POISONED, name).split() == ["True", "True"]


def test_a_matrix_that_the_card_has_no_room_for_is_a_memory_error() -> None:
    code = (
        "from qubix_kernels import cuda\n"
        "with cuda.device():\n"
        "    room = cuda.cuda.current_context().get_memory_info().total\n"
        "try:\n"
        "    with cuda.device(): cuda.empty((room,), 'float32')\n"
        "except MemoryError as error: print(error)\n"
    )
    assert program("-c", code).startswith("the device has no room for this: ")


def test_a_trial_on_the_card_has_the_digests_that_its_seed_says() -> None:
    found = rules.read_digests(bytes.fromhex(program("-m", "tests.card.trial_on_card").strip())).tolist()
    pages = [0, 1, SHAPE.pages // 2, SHAPE.pages - 1]
    assert len(found) == SHAPE.pages
    assert [found[page] for page in pages] == rules.expected(SHAPE, SEED, KEY, DEVICE, pages)


WIPED = """
import numpy as np
from numba.cuda.cudadrv.driver import device_memset, device_to_host
from qubix_kernels.box.cuda import memory_of_this_device
from qubix_kernels.box.wipe import MIB, overwrite

host = np.empty(MIB, np.uint8)

def seen(block, size):
    words = set()
    for offset in {0, (size - min(size, MIB)) // 2, size - min(size, MIB)}:
        device_to_host(host, block.view(offset), min(size, MIB))
        words |= set(np.unique(host[: min(size, MIB)]).tolist())
    return words

class Watched:
    def __init__(self, memory):
        self._memory, self.before, self.after = memory, set(), set()
    def free_bytes(self):
        return self._memory.free_bytes()
    def take(self, size):
        block = self._memory.take(size)
        device_memset(block, 0xA5, size)
        return block
    def clear(self, block, size):
        self.before |= seen(block, size)
        self._memory.clear(block, size)
        self.after |= seen(block, size)
    def clear_on_chip(self):
        self._memory.clear_on_chip()

memory = Watched(memory_of_this_device())
done = overwrite(memory)
print(sorted(memory.before), sorted(memory.after), done.whole, done.cleared_bytes)
"""


def test_the_wipe_really_overwrites_all_that_it_takes() -> None:
    """A pattern lies in each block before. What an earlier process left is not looked for: drivers for data centres
    hand out zeros by themselves."""
    before, after, whole, cleared = program("-c", WIPED).split()
    assert (before, after, whole) == ("[165]", "[0]", "True")
    assert int(cleared) > 2**30


def gpu() -> Gpu:
    """The first card by NVML, as a node shows it to a box."""
    code = (
        "from qubix_node.gpu.nvml import NvmlProbe\n"
        "probe = NvmlProbe(('matmul',), toolkit=13)\n"
        "print(*((one.device_id, probe.minor(one.device_id)) for one in probe.devices()), sep='\\n')\n"
    )
    first = program("-c", code).splitlines()[0]
    uuid, minor = first.strip("()").split(", ")
    return nvidia(uuid.strip("'"), int(minor))


def test_a_boxed_worker_computes_on_the_card_and_leaves_it_wiped(tmp_path: Path) -> None:
    assert found_here().kind == "box", found_here().reason
    product = Product(tmp_path, rows=300, inner=200, columns=500)
    zygote = Zygote.start(folders=[tmp_path], gpu=gpu())
    try:
        worker = zygote.fork(scratch=tmp_path, out=tmp_path)
        with worker.sock:
            say(worker.sock, product.run((0, 150), (150, 300), backend="cuda", chunk_units=150, target_s=1e6))
            *chunks, last = hear_all(worker.sock)
        assert isinstance(last, RunDone), last
        assert all(isinstance(chunk, ChunkDone) for chunk in chunks)
        parts = [Part(start=one.start, stop=one.stop, path=one.path) for one in chunks if isinstance(one, ChunkDone)]
        worker = zygote.fork(scratch=tmp_path, out=tmp_path)
        with worker.sock:
            say(worker.sock, product.verify(*parts))
            (verdict,) = hear_all(worker.sock)
        assert isinstance(verdict, VerifyDone), verdict
        assert verdict.accepted
        worker = zygote.fork(scratch=tmp_path)
        with worker.sock:
            say(worker.sock, WipeTask())
            (wiped,) = hear_all(worker.sock)
    finally:
        zygote.close()
    assert isinstance(wiped, WipeDone), wiped
    assert wiped.cleared_bytes > 0.9 * wiped.free_bytes
