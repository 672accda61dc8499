# SPDX-License-Identifier: Apache-2.0
"""Exact nearest neighbours of a batch of vectors, by squared Euclidean distance. notes.md has the reasoning."""

from typing import Any, Final

import numpy as np

from qubix_kernels.kernel import (
    Arrays,
    ArraySpec,
    Cost,
    Kernel,
    KernelSpec,
    Metas,
    Params,
    ParamSpec,
    ParamValue,
    Problem,
    Verdict,
    metas_of,
    no_backend,
)
from qubix_protocol.arrays import Array, ArrayMeta

_SAMPLE_MIN: Final = 32
_SAMPLE_SHARE: Final = 64
"""One query in so many is recomputed in full, at least `_SAMPLE_MIN`: a provider that cheats on a share s of the
queries is missed with probability (1 - s)^sample."""
_BLOCK_BYTES: Final = 32 * 1024 * 1024

SPEC: Final = KernelSpec(
    name="knn",
    version=1,
    title="Nearest neighbours",
    doc="For each query, the k nearest rows of data by squared Euclidean distance, nearest first; a unit is a query.",
    params=(ParamSpec(name="k", kind="int", low=1, high=1024, doc="neighbours for each query"),),
    inputs=(
        ArraySpec(name="queries", dims=("q", "d"), dtypes=("float32",), doc="what to look for, finite numbers"),
        ArraySpec(name="data", dims=("n", "d"), dtypes=("float32",), doc="where to look, finite numbers"),
    ),
    outputs=(
        ArraySpec(name="indices", dims=("q", "k"), dtypes=("int64",), doc="rows of data, nearest first"),
        ArraySpec(name="distances", dims=("q", "k"), dtypes=("float32",), doc="their squared distances"),
    ),
    backends=("cpu", "cuda"),
)


class Knn(Kernel):
    spec = SPEC

    def run(self, backend: str, inputs: Arrays, params: Params) -> dict[str, Array]:
        if backend == "cpu":
            from qubix_kernels.knn.cpu import search
        elif backend == "cuda":
            from qubix_kernels.knn.cuda import search
        else:
            raise no_backend(SPEC, backend)
        indices, distances = search(inputs["queries"], inputs["data"], int(params["k"]))
        return {"indices": indices, "distances": distances}

    def warm_up(self, backend: str, metas: Metas, params: Params) -> None:
        if backend == "cuda":
            from qubix_kernels.knn.cuda import warm_up_for

            warm_up_for(int(params["k"]))

    def verify(self, inputs: Arrays, params: Params, outputs: Arrays, rng: np.random.Generator) -> Verdict:
        problems = self.check_outputs(metas_of(inputs), params, outputs)
        if problems:
            return Verdict(accepted=False, reason="shape", detail=f"{problems[0].field} {problems[0].problem}")
        with np.errstate(all="ignore"):
            return _judge(inputs["queries"], inputs["data"], outputs["indices"], outputs["distances"], rng)

    def cost(self, metas: Metas, params: Params, units: int) -> Cost:
        (n, d), k = metas["data"].shape, int(params["k"])
        moved = 4.0 * (units * d + n * d + 2 * units * n) + 12.0 * units * k
        memory = 4 * (units * d + 2 * n * d) + 12 * units * k + 12 * _BLOCK_BYTES  # ties may keep whole blocks
        return Cost(units * n * (2.0 * d + 4.0) + 3.0 * units * k * d, moved, memory)

    def check_cost(self, metas: Metas, params: Params, units: int) -> Cost:
        d, k = metas["data"].shape[1], int(params["k"])
        full = self.cost(metas, params, _sample_size(units))
        return Cost(full.flops + 3.0 * units * k * d, full.bytes_moved + 4.0 * units * k * d, full.memory_bytes)

    def output_metas(self, metas: Metas, params: Params) -> dict[str, ArrayMeta]:
        shape = (metas["queries"].shape[0], int(params["k"]))
        return {"indices": ArrayMeta("int64", shape), "distances": ArrayMeta("float32", shape)}

    def subproblem(self, inputs: Arrays, params: Params, start: int, stop: int) -> tuple[dict[str, Array], Params]:
        return {"queries": inputs["queries"][start:stop], "data": inputs["data"]}, params

    def example(self, rng: np.random.Generator, scale: int) -> tuple[dict[str, Array], dict[str, ParamValue]]:
        queries, data = (rng.standard_normal((scale, 32), dtype=np.float32) for _ in range(2))
        return {"queries": queries, "data": data}, {"k": min(scale, 10)}

    def problems_of(self, metas: Metas, params: Params) -> tuple[Problem, ...]:
        n, k = metas["data"].shape[0], int(params["k"])
        if k <= n:
            return ()
        return (Problem("params.k", f"is {k}", f"data has {n} rows: k can be {n} at most"),)


def _sample_size(queries: int) -> int:
    return min(queries, max(_SAMPLE_MIN, queries // _SAMPLE_SHARE))


def _judge(queries: Array, data: Array, indices: Array, distances: Array, rng: np.random.Generator) -> Verdict:
    if not ((indices >= 0) & (indices < len(data))).all():
        return Verdict(accepted=False, reason="range", detail="an index points outside data")
    ordered = np.sort(indices, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        return Verdict(accepted=False, reason="duplicate", detail="a query names the same row twice")
    wrong = _wrong_distances(queries, data, indices, distances)
    if wrong:
        return Verdict(accepted=False, reason="distance", detail=wrong)
    if not (distances[:, 1:] >= distances[:, :-1]).all():
        return Verdict(accepted=False, reason="order", detail="distances are not in rising order")
    sample = rng.choice(len(queries), _sample_size(len(queries)), replace=False)
    missed = _missed(queries[sample], data, indices[sample], distances[sample, -1])
    measured = {"sampled": float(len(sample)), "missed": float(len(missed))}
    if missed:
        detail = f"query {sample[missed[0]]} has a nearer neighbour than those named"
        return Verdict(accepted=False, reason="missed_neighbour", detail=detail, measured=measured)
    return Verdict(accepted=True, measured=measured)


def tolerance(d: int, exact: Any) -> Any:
    """How far a float32 squared distance may lie from the exact one. All terms are positive: d roundings at most, and
    for long sums, where roundings do not all go one way, a multiple of sqrt(d). Underflow may lose each term."""
    limits = np.finfo(np.float32)
    return exact * (float(limits.eps) * (4 + min(d / 2, 16 * np.sqrt(d)))) + d * float(limits.tiny)


def _wrong_distances(queries: Array, data: Array, indices: Array, distances: Array) -> str:
    """Every claimed distance recomputed in float64; "" when all are right."""
    d = data.shape[1]
    step = max(1, _BLOCK_BYTES // (8 * d * indices.shape[1] * 2))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        apart = data[indices[part]].astype(np.float64) - queries[part, None, :].astype(np.float64)
        exact = np.einsum("qkd,qkd->qk", apart, apart)
        off = np.abs(distances[part].astype(np.float64) - exact)
        slack = tolerance(d, exact)
        fine = (off <= slack) | ((exact + slack >= np.finfo(np.float32).max) & np.isposinf(distances[part]))
        if not fine.all():
            q, k = (int(i[0]) for i in np.nonzero(~fine))
            return f"query {start + q}, neighbour {k}: {distances[start + q, k]:.6g}, it should be {exact[q, k]:.6g}"
    return ""


def _missed(queries: Array, data: Array, named: Array, worst: Array) -> list[int]:
    """Positions of queries for which some row of data that is not named lies nearer than the farthest one named, by
    more than rounding."""
    found: list[int] = []
    step = max(1, _BLOCK_BYTES // (8 * data.shape[1]))
    for at, (query, rows, farthest) in enumerate(zip(queries.astype(np.float64), named, worst, strict=True)):
        # Off by rounding: the claim, and both distances that an honest back end compared.
        far = min(float(farthest), float(np.finfo(np.float32).max))
        limit = far - 3 * float(tolerance(data.shape[1], far))
        for start in range(0, len(data), step):
            apart = data[start : start + step] - query
            nearer = np.flatnonzero(np.einsum("nd,nd->n", apart, apart) < limit) + start
            if not np.isin(nearer, rows, assume_unique=True).all():
                found.append(at)
                break
    return found


KERNEL: Final = Knn()
