# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours: sums in float32, ties and far-away data; neighbours that are none, or not all of them."""

import functools
from collections.abc import Callable

import numpy as np

from tests.kernels.conformance.cheats import of_other_job
from tests.kernels.conformance.world import Array, Job, Outputs, Rng, Subject

Kind = Callable[[Rng, int, int, int], tuple[Array, Array]]


def job(q: int, n: int, d: int, k: int, seed: int = 0, kind: Kind | None = None) -> Job:
    queries, data = (x.astype(np.float32) for x in (kind or normal)(np.random.default_rng(seed), q, n, d))
    return Job.of("knn", {"queries": queries, "data": data}, k=k)


def normal(rng: Rng, q: int, n: int, d: int) -> tuple[Array, Array]:
    return rng.standard_normal((q, d)), rng.standard_normal((n, d))


def far_away(rng: Rng, q: int, n: int, d: int) -> tuple[Array, Array]:
    queries, data = normal(rng, q, n, d)
    return queries + 1e4, data + 1e4


def with_ties(rng: Rng, q: int, n: int, d: int) -> tuple[Array, Array]:
    return rng.integers(0, 3, (q, d)), rng.integers(0, 3, (n, d))


def all_equal(rng: Rng, q: int, n: int, d: int) -> tuple[Array, Array]:
    return np.full((q, d), 0.1), np.full((n, d), 0.1)


def one_outlier(rng: Rng, q: int, n: int, d: int) -> tuple[Array, Array]:
    queries, data = normal(rng, q, n, d)
    data[n // 2] *= 1e6
    return queries, data


def queries_in_data(rng: Rng, q: int, n: int, d: int) -> tuple[Array, Array]:
    data = rng.standard_normal((n, d))
    return data[rng.integers(0, n, q)], data


def tiny(rng: Rng, q: int, n: int, d: int) -> tuple[Array, Array]:
    queries, data = normal(rng, q, n, d)
    return queries * 1e-18, data * 1e-18


KINDS: list[Kind] = [normal, far_away, with_ties, all_equal, one_outlier, queries_in_data, tiny]


def in_float32(asked: Job) -> Outputs:
    """Sequential float32 sums of squared differences, as a GPU thread per pair takes them."""
    queries, data = asked.inputs["queries"], asked.inputs["data"]
    apart = np.zeros((len(queries), len(data)), np.float32)
    for d in range(data.shape[1]):
        apart += np.square(queries[:, d, None] - data[:, d])
    return _nearest(apart, asked.params["k"])


def _nearest(apart: Array, k: int) -> Outputs:
    indices = np.argsort(apart, axis=1, kind="stable")[:, :k]
    return {"indices": indices, "distances": np.take_along_axis(apart, indices, axis=1).astype(np.float32)}


def exact(asked: Job) -> Array:
    queries, data = (asked.inputs[name].astype(np.float64) for name in ("queries", "data"))
    return np.stack([np.square(data - query).sum(axis=1) for query in queries])


def wrong(asked: Job, outputs: Outputs) -> str:
    """Distances are those of the nearest, and of the rows that are named; of equal ones any may be named."""
    apart = exact(asked)
    nearest = np.sort(apart, axis=1)[:, : asked.params["k"]]
    named = np.take_along_axis(apart, outputs["indices"], axis=1)
    for found in (named, outputs["distances"].astype(np.float64)):
        if not np.all(np.abs(found - nearest) <= 1e-5 * nearest + 1e-40):
            return f"{np.abs(found - nearest).max()} off"
    return ""


def random(rng: Rng) -> Job:
    q, n, d = (int(size) for size in 2 ** rng.uniform(0, (6, 7, 7)))
    return job(q, n, d, int(rng.integers(1, min(n, 12) + 1)), int(rng.integers(1 << 30)), KINDS[rng.integers(7)])


trial = functools.partial(job, 300, 500, 24, 6, 8)


def neighbours_swapped(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    outputs["indices"][5, [0, 1]] = outputs["indices"][5, [1, 0]]
    return outputs


def swapped_with_distances(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    for array in outputs.values():
        array[5, [0, 1]] = array[5, [1, 0]]
    return outputs


def last_is_the_next(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    """Of every query the last neighbour is left out for the one after it, with its right distance."""
    more = _nearest(exact(asked), asked.params["k"] + 1)
    return {name: np.delete(array, -2, axis=1) for name, array in more.items()}


def last_of_one_is_the_next(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    changed = last_is_the_next(asked, outputs, rng)
    for name, array in outputs.items():
        array[7] = changed[name][7]
    return outputs


def over_half_the_data(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return _nearest(exact(asked)[:, : len(asked.inputs["data"]) // 2], asked.params["k"])


def over_a_sample_in_float16(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    queries, data = (asked.inputs[name].astype(np.float16).astype(np.float32) for name in ("queries", "data"))
    return in_float32(Job(asked.kernel, {"queries": queries, "data": data}, asked.params))


def not_squared(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return {**outputs, "distances": np.sqrt(outputs["distances"])}


def by_another_measure(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    """Neighbours by the sum of absolute differences, with their right squared distances, in order."""
    queries, data = (asked.inputs[name].astype(np.float64) for name in ("queries", "data"))
    apart = np.stack([np.abs(data - query).sum(axis=1) for query in queries])
    chosen = np.argsort(apart, axis=1)[:, : asked.params["k"]]
    squared = np.take_along_axis(exact(asked), chosen, axis=1)
    order = np.argsort(squared, axis=1)
    return {
        "indices": np.take_along_axis(chosen, order, axis=1),
        "distances": np.take_along_axis(squared, order, axis=1).astype(np.float32),
    }


def wrong_distance(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    outputs["distances"][-1, -1] *= 1.001
    return outputs


def duplicate(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    for array in outputs.values():
        array[7, 3] = array[7, 2]
    return outputs


def past_the_end(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    outputs["indices"][0, 0] = len(asked.inputs["data"])
    return outputs


def from_the_end(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    outputs["indices"][0, 0] -= len(asked.inputs["data"])
    return outputs


SUBJECT = Subject(
    edges=[
        lambda: job(1, 1, 1, 1),
        lambda: job(7, 13, 3, 13),
        lambda: job(5, 31, 1, 1),
        lambda: job(3, 17, 29, 5, kind=far_away),
        lambda: job(3, 19, 5, 4, kind=one_outlier),
        lambda: job(3, 11, 7, 3, kind=with_ties),
        lambda: job(2, 7, 5, 2, kind=tiny),
    ],
    random=random,
    wrong=wrong,
    elsewhere=[in_float32],
    trial=trial,
    complete=functools.partial(job, 30, 100, 8, 5, 8),
    cheats={
        "two neighbours swapped": neighbours_swapped,
        "two neighbours swapped with distances": swapped_with_distances,
        "the last neighbour left out": last_is_the_next,
        "half of the data left out": over_half_the_data,
        "inputs in float16": over_a_sample_in_float16,
        "distances not squared": not_squared,
        "neighbours by another measure": by_another_measure,
        "a wrong distance": wrong_distance,
        "a neighbour twice": duplicate,
        "a row past the end": past_the_end,
        "a row counted from the end": from_the_end,
        "a stale result": of_other_job(functools.partial(job, 300, 500, 24, 6, 9)),
    },
    small_cheats={"one neighbour of one query left out": last_of_one_is_the_next},
    exact=frozenset({"cpu"}),
)
