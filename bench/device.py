# SPDX-License-Identifier: Apache-2.0
"""The CUDA back ends on the device there is: beside cuBLAS (through CuPy, where it is installed), beside what its
memory can do, and beside the CPU of the same machine."""

import importlib
import importlib.util
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np

from bench.figures import Figure, beside, median_s
from qubix_kernels import cuda as door
from qubix_kernels import get, names
from qubix_kernels.matmul import cuda as matmul
from qubix_kernels.matmul.norms import summed_in
from qubix_protocol.arrays import Array

_REPEATS: Final = 9
_SIZES: Final = {"float32": 4096, "float16": 4096, "float64": 2048}
_SCALES: Final = {"matmul": 4096, "knn": 8192, "mandelbrot": 2048, "montecarlo_option": 4096}


def missing() -> str:
    """Why there is nothing to measure; "" where there is a device."""
    return "" if door.cuda.is_available() else f"no CUDA device: {' '.join(str(door.cuda.cuda_error()).split())}"


def figures() -> list[Figure]:
    with door.device():
        name = door.cuda.get_current_device().name
        title = name.decode() if isinstance(name, bytes) else str(name)
        print(f"bench kernels: {title}", file=sys.stderr)
        found = [_product(dtype, size) for dtype, size in _SIZES.items()]
        found += _norms()
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


def _matrix(dtype: str, size: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((size, size)).astype(dtype)


def _product(dtype: str, size: int) -> Figure:
    """In Tflop/s. The aim is for float32, where both use the same units; float16 has tensor cores only in cuBLAS."""
    a, b = (_matrix(dtype, size, seed) for seed in (0, 1))
    left, right, c = door.send(a), door.send(b), door.empty((size, size), summed_in(a.dtype))
    rate = 2.0 * size**3 / 1e12
    ours = rate / device_s(lambda: matmul.launch(left, right, c))
    name = f"matmul at {size}, {dtype}, device"
    theirs = _cublas_s(a, b)
    if theirs is None:
        return Figure(name=name, value=ours, unit="Tflop/s", note="CuPy is not installed: nothing to stand beside")
    aim = 0.6 if dtype == "float32" else None
    return beside(name, ours, "Tflop/s", limit=rate / theirs, limit_name="cuBLAS", at_least=aim)


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


def _norms() -> list[Figure]:
    """The reductions, in bytes read, beside a copy on the device, which reads and writes."""
    size = 8192
    a = _matrix("float32", size, 0)
    sent, other = door.send(a), door.empty(a.shape, a.dtype)
    copied = 2 * a.nbytes / device_s(lambda: other.copy_to_device(sent)) / 1e9
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
            limit=copied,
            limit_name="a copy on the device",
            at_least=0.9,
        )
        for which, work in works.items()
    ]


def _whole(name: str) -> Figure:
    """Arrays of the host in, arrays of the host out; compiled before."""
    kernel, scale = get(name), _SCALES[name]
    inputs, params = kernel.example(np.random.default_rng(0), scale)
    ours, theirs = (median_s(partial(kernel.run, backend, inputs, params), repeats=3) for backend in ("cuda", "cpu"))
    title = f"{name} at {scale}, device, with transfers"
    return beside(title, ours * 1000, "ms", limit=theirs * 1000, limit_name="its CPU back end")
