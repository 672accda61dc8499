# SPDX-License-Identifier: Apache-2.0
"""The CUDA back ends on the card there is: beside cuBLAS and PyTorch, where those are installed, beside what its memory
and its arithmetic units can do in the same run, and beside the CPU of the same machine."""

import importlib
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np

from bench.figures import Figure, beside, median_s
from qubix_kernels import cuda as door
from qubix_kernels import get, names
from qubix_kernels.cuda import DeviceKernel, cuda, float32
from qubix_kernels.kernel import metas_of
from qubix_kernels.mandelbrot import cuda as mandelbrot
from qubix_kernels.matmul import cuda as matmul
from qubix_kernels.matmul.norms import summed_in
from qubix_kernels.montecarlo_option import cuda as montecarlo
from qubix_kernels.montecarlo_option.model import Option
from qubix_kernels.montecarlo_option.spec import FLOPS as PATH_OPERATIONS
from qubix_protocol.arrays import Array

_REPEATS: Final = 9
_SIZES: Final = (("float32", 1024), ("float32", 4096), ("float32", 8192), ("float16", 4096), ("float64", 4096))
_SCALES: Final = {"matmul": 4096, "knn": 8192, "mandelbrot": 2048, "montecarlo_option": 4096}
_STEP_INSTRUCTIONS: Final = 7
"""Of one iteration of a pixel, in float32: three products or fused ones, four sums. Its comparison is extra."""
_WAKE_S: Final = 1.0
_THREADS, _CHAINS, _UNROLLED = 256, 8, 16


def missing() -> str:
    """Why there is nothing to measure; "" where there is a device."""
    return "" if door.cuda.is_available() else f"no CUDA device: {' '.join(str(door.cuda.cuda_error()).split())}"


def title() -> str:
    with door.device():
        name = door.cuda.get_current_device().name
    return name.decode() if isinstance(name, bytes) else str(name)


def figures() -> list[Figure]:
    print(f"bench cards: {title()}", file=sys.stderr)
    found = [_warming(name) for name in _SCALES]
    with door.device():
        _wake()
        rate, copied = fused_per_s(), copied_per_s()
        found.append(Figure(name="fused multiply-adds, float32", value=2 * rate / 1e12, unit="Tflop/s"))
        found.append(Figure(name="a copy on the device, read and written", value=copied / 1e9, unit="GB/s"))
        found += [_product(dtype, size, rate) for dtype, size in _SIZES]
        found += [*_norms(copied), _iterations(rate), _paths(rate), _neighbours(rate)]
    return found + [_whole(kernel) for kernel in names() if "cuda" in get(kernel).spec.backends and kernel in _SCALES]


def device_s(work: Callable[[], object]) -> float:
    """Median time on the device of what `work` starts, after one run to compile and warm up."""
    work()
    times = []
    for _ in range(_REPEATS):
        began, ended = door.cuda.event(), door.cuda.event()
        began.record()
        work()
        ended.record()
        ended.synchronize()
        times.append(float(began.elapsed_time(ended)) / 1000)
    return statistics.median(times)


# What the card can do at best ---------------------------------------------------------------------------------------


def _chains(rounds: Any, factor: Any, sums: Any) -> None:
    """Eight chains of dependent multiply-adds a thread: nothing but their rate limits it."""
    at = cuda.blockIdx.x * _THREADS + cuda.threadIdx.x
    own = cuda.local.array(_CHAINS, float32)
    for i in range(_CHAINS):
        own[i] = factor + float32(i)
    for _ in range(rounds):
        for _ in range(_UNROLLED):
            for i in range(_CHAINS):
                own[i] = own[i] * factor + factor
    total = float32(0)
    for i in range(_CHAINS):
        total += own[i]
    sums[at] = total


CHAINS: Final = DeviceKernel(
    name="chains",
    function=_chains,
    signature="void(int32, float32, float32[::1])",
    block=(_THREADS,),
    blocks_per_sm=4,
    registers_max=40,
)


def _wake() -> None:
    """An idle card's clocks take a while to rise."""
    began = time.perf_counter()
    while time.perf_counter() < began + _WAKE_S:
        fused_per_s()


def fused_per_s() -> float:
    """Fused multiply-adds in float32 a second: of two operations each."""
    blocks, rounds = 32 * door.multiprocessors(), 512
    sums = door.empty((blocks * _THREADS,), np.float32)
    took_s = device_s(lambda: CHAINS.launch((blocks,), np.int32(rounds), np.float32(0.5), sums))
    return float(blocks * _THREADS * rounds * _UNROLLED * _CHAINS) / took_s


def copied_per_s() -> float:
    """Bytes that a copy of 4 GiB on the device reads and writes in a second."""
    one, other = (door.empty((1 << 30,), np.float32) for _ in range(2))
    return 2 * float(one.nbytes) / device_s(lambda: other.copy_to_device(one))


# The kernels --------------------------------------------------------------------------------------------------------


def _warming(name: str) -> Figure:
    """What a worker's first chunk waits for, once Numba is imported: the first one makes the context as well."""
    kernel = get(name)
    inputs, params = kernel.example(np.random.default_rng(0), 64)
    began = time.perf_counter()
    kernel.warm_up("cuda", metas_of(inputs), params)
    return Figure(name=f"{name}: warming up in a worker", value=(time.perf_counter() - began) * 1000, unit="ms")


def _matrix(dtype: str, size: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((size, size), np.float32).astype(dtype)


def _product(dtype: str, size: int, fused: float) -> Figure:
    """In Tflop/s. The aim is for float32, where both use the same units; float16 and float64 have tensor cores only in
    cuBLAS."""
    a, b = (_matrix(dtype, size, seed) for seed in (0, 1))
    left, right, c = door.send(a), door.send(b), door.empty((size, size), summed_in(a.dtype))
    rate = 2.0 * size**3 / 1e12
    ours = rate / device_s(lambda: matmul.launch(left, right, c))
    name, peak = f"matmul at {size}, {dtype}, device", 2 * fused / 1e12
    note = "" if dtype == "float64" else f"{ours / peak:.0%} of the multiply-adds' rate"
    theirs = _cublas_s(a, b)
    _give_back("cupy")
    if theirs is None:
        return beside(name, ours, "Tflop/s", limit=peak, limit_name="multiply-adds", note="CuPy is not installed")
    aim = 0.6 if dtype == "float32" and size > 1024 else None
    return beside(name, ours, "Tflop/s", limit=rate / theirs, limit_name="cuBLAS", at_least=aim, note=note)


def _cublas_s(a: Array, b: Array) -> float | None:
    if importlib.util.find_spec("cupy") is None:
        return None
    cupy: Any = importlib.import_module("cupy")
    left, right = cupy.asarray(a), cupy.asarray(b)
    c = cupy.empty((len(a), b.shape[1]), a.dtype)
    door.cuda.synchronize()

    def work() -> None:
        with cupy.cuda.Stream.null:
            cupy.matmul(left, right, out=c)

    return device_s(work)


def _norms(copied: float) -> list[Figure]:
    """The reductions, in bytes read, beside a copy on the device, which reads and writes."""
    size = 16_384
    a = _matrix("float32", size, 0)
    sent = door.send(a)
    rows, columns = door.empty((size,), np.float64), door.empty((matmul.STRIPES, size), np.float64)
    works = {
        "rows": lambda: matmul.start_row_squares(sent, rows),
        "columns": lambda: matmul.start_column_squares(sent, columns),
    }
    return [
        beside(
            f"squares of {which} at {size}, device",
            a.nbytes / device_s(work) / 1e9,
            "GB/s",
            limit=copied / 1e9,
            limit_name="a copy on the device",
            at_least=0.9,
        )
        for which, work in works.items()
    ]


def _iterations(fused: float) -> Figure:
    """Iterations a second, of all pixels of an image, beside what its arithmetic alone takes."""
    size, most = 4096, 4096
    place = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(3.0 / size)
    x, y = door.send(place - np.float32(2.25)), door.send(np.float32(1.5) - place)
    counts = door.empty((size, size), np.int32)
    took_s = device_s(lambda: mandelbrot.start(x, y, most, counts))
    found = door.fetch(counts)
    steps = float(found.sum(dtype=np.int64)) + float((found < most).sum())
    limit = fused / _STEP_INSTRUCTIONS
    return beside(
        f"mandelbrot at {size}, device", steps / took_s / 1e9, "G steps/s", limit=limit / 1e9, limit_name="arithmetic"
    )


def _paths(fused: float) -> Figure:
    """Paths a second, beside the operations of a path at the rate of multiply-adds."""
    lanes, paths = 16_384, 16_384
    option = Option(start=95.6, spread=0.3, strike=101.9, sign=1.0)
    sums, squares = (door.empty((lanes,), np.float32) for _ in range(2))
    took_s = device_s(lambda: montecarlo.start(option, 0, paths, 7, sums, squares))
    return beside(
        f"montecarlo_option, {lanes:,} lanes, device",
        lanes * paths / took_s / 1e9,
        "G paths/s",
        limit=fused / PATH_OPERATIONS / 1e9,
        limit_name=f"{PATH_OPERATIONS:g} operations a path",
    )


def _neighbours(fused: float) -> Figure:
    """A whole search, whose data lie on the card: pairs and dimensions a second, at two instructions each, beside
    PyTorch's product form and its topk, or beside the arithmetic."""
    q, n, d, k = 4096, 262_144, 128, 10
    rng = np.random.default_rng(0)
    queries, data = rng.standard_normal((q, d), np.float32), rng.standard_normal((n, d), np.float32)
    data.flags.writeable = False
    took_s = median_s(lambda: get("knn").run("cuda", {"queries": queries, "data": data}, {"k": k}), repeats=5)
    name, pairs = f"knn of {q:,} in {n:,}, {d} dimensions, device", float(q) * n * d / 1e9
    at_best = fused / 2 / 1e9
    theirs = _torch_s(queries, data, k)
    _give_back("torch")
    if theirs is None:
        return beside(name, pairs / took_s, "G pairs/s", limit=at_best, limit_name="arithmetic")
    note, form = f"{pairs / took_s / at_best:.0%} of two instructions a pair and dimension", "PyTorch, product form"
    return beside(name, pairs / took_s, "G pairs/s", limit=pairs / theirs, limit_name=form, note=note)


def _torch_s(queries: Array, data: Array, k: int) -> float | None:
    """‖x‖² − 2xy + ‖y‖² in float32 by blocks of queries, and topk; its data lie on the card, too."""
    if importlib.util.find_spec("torch") is None:
        return None
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = False
    rows = torch.from_numpy(data.copy()).cuda()
    squares = (rows * rows).sum(1)

    def work() -> None:
        sent = torch.from_numpy(queries).cuda()
        for block in sent.split(2048):
            apart = torch.addmm(squares, block, rows.T, alpha=-2.0)
            near = torch.topk(apart, k, largest=False)
            near.values.cpu(), near.indices.cpu()

    return median_s(work, repeats=5)


def _give_back(library: str) -> None:
    """What a library keeps for itself of the card's memory, when it is loaded at all."""
    loaded = sys.modules.get(library)
    if loaded is not None and library == "cupy":
        loaded.get_default_memory_pool().free_all_blocks()
    elif loaded is not None:
        loaded.cuda.empty_cache()


def _whole(name: str) -> Figure:
    """Arrays of the host in, arrays of the host out; compiled before."""
    kernel, scale = get(name), _SCALES[name]
    inputs, params = kernel.example(np.random.default_rng(0), scale)
    ours = median_s(partial(kernel.run, "cuda", inputs, params), repeats=5)
    began = time.perf_counter()
    kernel.run("cpu", inputs, params)
    theirs = time.perf_counter() - began
    title = f"{name} at {scale}, device, with transfers"
    return beside(title, ours * 1000, "ms", limit=theirs * 1000, limit_name="its CPU back end, once")
