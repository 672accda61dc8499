# SPDX-License-Identifier: Apache-2.0
"""Every kernel's CPU back end beside NumPy, SciPy or scikit-learn at the same work, in one process with the same
threads; WebGPU back ends where there is a device, and what compiling for CUDA costs. CUDA back ends: `bench cards`."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from bench import graphics
from bench.figures import Figure, side_by_side
from qubix_kernels import get, names, sass
from qubix_protocol.arrays import Array

_SCALES: Final = {"matmul": 2048, "mandelbrot": 512, "montecarlo_option": 512, "onnx": 512}
_ARCHITECTURE: Final = "9.0"

Inputs = Mapping[str, Array]
Params = Mapping[str, Any]
Plain = Callable[[Inputs, Params], object]


def run() -> list[Figure]:
    found = [_beside_plain(name, plain, words) for name, (plain, words) in _PLAIN.items() if name in names()]
    found += [_neighbours(), _neighbours_in_space(), _half_precision(), *_compiling()]
    absent = graphics.missing()
    print(f"bench kernels: {absent or 'measuring the WebGPU back ends too'}", file=sys.stderr)
    return found if absent else [*found, *graphics.figures()]


def _beside_plain(name: str, plain: Plain, words: str) -> Figure:
    kernel, scale = get(name), _SCALES[name]
    inputs, params = kernel.example(np.random.default_rng(0), scale)
    return side_by_side(
        f"{name} at {scale}, CPU", lambda: kernel.run("cpu", inputs, params), lambda: plain(inputs, params), words
    )


def _product(inputs: Inputs, params: Params) -> object:
    return inputs["a"] @ inputs["b"]


def _escapes(inputs: Inputs, params: Params) -> Array:
    """The loop of textbooks: all pixels, until the last iteration."""
    across = params["left"] + params["pixel"] * (np.arange(params["width"]) + 0.5)
    down = params["top"] - params["pixel"] * (np.arange(params["height"]) + 0.5)
    c = (across[None, :] + 1j * down[:, None]).astype(np.complex64)
    z, counts = c.copy(), np.zeros(c.shape, np.int32)
    with np.errstate(all="ignore"):
        for _ in range(params["max_iterations"]):
            inside = z.real**2 + z.imag**2 <= 4
            counts += inside
            z = np.where(inside, z * z + c, z)
    return counts


def _paths(inputs: Inputs, params: Params) -> Array:
    """The same number of paths from NumPy's own generator, lane by lane."""
    rng, spread = np.random.default_rng(params["seed"]), params["volatility"] * params["maturity"] ** 0.5
    drift = params["rate"] * params["maturity"] - spread**2 / 2
    sums = np.empty(params["lanes"], np.float32)
    for lane in range(params["lanes"]):
        normal = rng.standard_normal(params["paths_per_lane"], dtype=np.float32)
        price = np.float32(params["spot"]) * np.exp(np.float32(drift) + np.float32(spread) * normal)
        payoff = np.maximum(price - np.float32(params["strike"]), 0)
        sums[lane] = payoff.sum() + np.square(payoff).sum()
    return sums


def _model(inputs: Inputs, params: Params) -> object:
    """onnxruntime alone, which loads the model and runs the whole batch at once."""
    import onnxruntime

    session = onnxruntime.InferenceSession(inputs["model"].tobytes(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": inputs["x"]})


_PLAIN: Final[dict[str, tuple[Plain, str]]] = {
    "matmul": (_product, "bare a @ b"),
    "mandelbrot": (_escapes, "the plain loop in NumPy"),
    "montecarlo_option": (_paths, "NumPy's generator"),
    "onnx": (_model, "bare onnxruntime"),
}


def _half_precision() -> Figure:
    a, b = (np.random.default_rng(i).standard_normal((1024, 1024)).astype(np.float16) for i in range(2))
    return side_by_side(
        "matmul at 1024, float16, CPU",
        lambda: get("matmul").run("cpu", {"a": a, "b": b}, {}),
        lambda: a.astype(np.float32) @ b.astype(np.float32),
        "widening and a @ b",
    )


def _vectors(d: int) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {
        "queries": rng.standard_normal((2_000, d), np.float32),
        "data": rng.standard_normal((20_000, d), np.float32),
    }


def _neighbours() -> Figure:
    from sklearn.neighbors import NearestNeighbors

    vectors = _vectors(64)
    other = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(vectors["data"])
    return _search("64", vectors, lambda: other.kneighbors(vectors["queries"]), "scikit-learn, brute force")


def _neighbours_in_space() -> Figure:
    """Where a tree is at its best: in few dimensions."""
    from scipy.spatial import cKDTree

    vectors = _vectors(3)
    return _search(
        "3",
        vectors,
        lambda: cKDTree(vectors["data"]).query(vectors["queries"], k=10),
        "SciPy's cKDTree, built and asked",
    )


def _search(d: str, vectors: dict[str, Array], theirs: Callable[[], object], limit_name: str) -> Figure:
    name = f"knn of 2,000 in 20,000, {d} dimensions, CPU"
    return side_by_side(name, lambda: get("knn").run("cpu", vectors, {"k": 10}), theirs, limit_name)


def _compiling() -> list[Figure]:
    """What a worker's first chunk pays on a device, for each function that it starts, after half a second of Numba."""
    began = time.perf_counter()
    found = sass.report(_ARCHITECTURE)
    whole_ms = (time.perf_counter() - began) * 1000
    slowest = max(found, key=lambda one: one.compile_ms)
    name = f"compiling {slowest.function} of {slowest.kernel.split('.')[-2]}"
    note = f"the slowest of {len(found)} functions for {slowest.architecture}; all take {whole_ms:,.0f} ms"
    return [Figure(name=name, value=slowest.compile_ms, unit="ms", note=note)]
