# SPDX-License-Identifier: Apache-2.0
"""Matrix products: sums in other orders on hard inputs, and products of less or of something else."""

import functools
from collections.abc import Callable

import numpy as np

from tests.kernels.conformance.cheats import of_other_job
from tests.kernels.conformance.world import Array, Cheat, Job, Outputs, Rng, Subject

Kind = Callable[[Rng, int, int, int], tuple[Array, Array]]


def job(m: int, k: int, n: int, seed: int = 0, dtype: str = "float32", kind: Kind | None = None) -> Job:
    rng = np.random.default_rng(seed)
    with np.errstate(under="ignore"):
        a, b = (x.astype(dtype) for x in (kind or normal)(rng, m, k, n))
    return Job.of("matmul", {"a": a, "b": b})


def one_by_one(a: Array, b: Array) -> Array:
    """The naive sequential sum in the matrices' own precision, as a GPU thread per element takes it."""
    c = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    with np.errstate(under="ignore"):
        for k in range(a.shape[1]):
            c += a[:, k, None] * b[k]
    return c


def backwards(a: Array, b: Array) -> Array:
    return one_by_one(a[:, ::-1], b[::-1])


def in_lanes(a: Array, b: Array) -> Array:
    return functools.reduce(np.add, [one_by_one(a[:, i::8], b[i::8]) for i in range(min(8, len(b)))])


ORDERS: list[Callable[[Array, Array], Array]] = [one_by_one, backwards, in_lanes]


def normal(rng: Rng, m: int, k: int, n: int) -> tuple[Array, Array]:
    return rng.standard_normal((m, k)), rng.standard_normal((k, n))


def positive(rng: Rng, m: int, k: int, n: int) -> tuple[Array, Array]:
    return rng.random((m, k)), rng.random((k, n))


def constant(rng: Rng, m: int, k: int, n: int) -> tuple[Array, Array]:
    return np.full((m, k), rng.random()), np.full((k, n), rng.random())


def alternating(rng: Rng, m: int, k: int, n: int) -> tuple[Array, Array]:
    return np.full((m, k), 0.1), np.where(np.arange(k) % 2, 0.3, -0.3)[:, None].repeat(n, axis=1)


def huge_first(rng: Rng, m: int, k: int, n: int) -> tuple[Array, Array]:
    a, b = rng.random((m, k)) * 0.03, rng.random((k, n)) * 0.3
    a[:, 0] = b[0] = 1e3
    return a, b


def badly_scaled(rng: Rng, m: int, k: int, n: int) -> tuple[Array, Array]:
    a, b = normal(rng, m, k, n)
    return a * 10.0 ** rng.integers(-12, 12, (m, 1)), b * 10.0 ** rng.integers(-12, 12, (1, n))


def tiny(rng: Rng, m: int, k: int, n: int) -> tuple[Array, Array]:
    a, b = normal(rng, m, k, n)
    return a * 1e-20, b * 10.0 ** rng.integers(-22, -15, (1, n))


def sparse(rng: Rng, m: int, k: int, n: int) -> tuple[Array, Array]:
    a, b = normal(rng, m, k, n)
    a[rng.random(a.shape) < 0.9] = 0
    b[:, rng.random(n) < 0.3] = 0
    return a, b


def small_integers(rng: Rng, m: int, k: int, n: int) -> tuple[Array, Array]:
    return rng.integers(-3, 4, (m, k)), rng.integers(0, 256, (k, n))


KINDS: list[Kind] = [normal, positive, constant, alternating, huge_first, badly_scaled, tiny, sparse, small_integers]


def wide(asked: Job) -> tuple[Array, Array]:
    return asked.inputs["a"].astype(np.longdouble), asked.inputs["b"].astype(np.longdouble)


def wrong(asked: Job, outputs: Outputs) -> str:
    """Relative to |a| |b|, in which no partial sum is larger."""
    (a, b), c = wide(asked), outputs["c"]
    size = np.abs(a) @ np.abs(b)
    off = np.abs(c - a @ b)
    allowed = (a.shape[1] + 2) * np.finfo(c.dtype).eps * size + a.shape[1] * np.finfo(c.dtype).tiny
    return "" if np.all(off <= allowed) else f"{float((off - allowed).max())} too far off"


def random(rng: Rng) -> Job:
    m, k, n = (int(size) for size in 2 ** rng.uniform(0, (6.5, 9, 6.5)))
    dtype = str(rng.choice(["float32", "float32", "float64"]))
    return job(m, k, n, int(rng.integers(1 << 30)), dtype, KINDS[rng.integers(len(KINDS))])


def in_order(order: Callable[[Array, Array], Array]) -> Callable[[Job], Outputs]:
    return lambda asked: {"c": order(asked.inputs["a"], asked.inputs["b"])}


trial = functools.partial(job, 512, 512, 512, 8)


def product(a: Array, b: Array) -> Outputs:
    return {"c": np.ascontiguousarray(a @ b).astype(np.float32)}


def half_inputs(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return product(*(asked.inputs[name].astype(np.float16).astype(np.float32) for name in "ab"))


def one_half_row(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    outputs["c"][100] = outputs["c"][100].astype(np.float16)
    return outputs


def short_sum(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return product(asked.inputs["a"][:, :-1], asked.inputs["b"][:-1])


def cancelling_pair(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    """Escapes one vector with probability 1/2."""
    outputs["c"][44, 10] += 5
    outputs["c"][44, 11] -= 5
    return outputs


def columns_swapped(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    outputs["c"][:, [0, 1]] = outputs["c"][:, [1, 0]]
    return outputs


def absolute(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return {"c": np.abs(outputs["c"])}


def rounded(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return {"c": np.round(outputs["c"], 2)}


def one_value(value: float) -> Cheat:
    def spoil(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
        outputs["c"][5, 9] = value
        return outputs

    return spoil


def one_percent(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    outputs["c"][417, 203] += 0.01 * np.sqrt(np.mean(np.square(outputs["c"])))
    return outputs


def two_rows_swapped(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    outputs["c"][[3, 400]] = outputs["c"][[400, 3]]
    return outputs


def the_other_way_round(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return product(asked.inputs["b"], asked.inputs["a"])


SUBJECT = Subject(
    edges=[
        lambda: job(1, 1, 1),
        lambda: job(1, 13, 7),
        lambda: job(17, 1, 3),
        lambda: job(7, 31, 5, dtype="float64"),
        lambda: job(5, 23, 11, dtype="float16"),
        lambda: job(13, 29, 11, kind=badly_scaled),
        lambda: job(5, 37, 7, kind=tiny),
        lambda: job(11, 41, 13, kind=huge_first),
    ],
    random=random,
    wrong=wrong,
    elsewhere=[in_order(order) for order in ORDERS],
    trial=trial,
    complete=functools.partial(job, 48, 64, 40, 8),
    cheats={
        "inputs in float16": half_inputs,
        "one row in float16": one_half_row,
        "a sum that ends early": short_sum,
        "errors that cancel": cancelling_pair,
        "two columns swapped": columns_swapped,
        "absolute values": absolute,
        "rounded to 1/100": rounded,
        "b @ a": the_other_way_round,
        "two rows of many swapped": two_rows_swapped,
        "1 % of rms on one of many elements": one_percent,
        "one huge value": one_value(3e38),
        "NaN for one of many": one_value(np.nan),
        "minus infinity for one": one_value(-np.inf),
        "a stale result": of_other_job(functools.partial(job, 512, 512, 512, 9)),
    },
    small_cheats={},
)
