# SPDX-License-Identifier: Apache-2.0
"""knn: right by a float64 reference; honest results pass, ties included; every planted cheat is caught."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qubix_kernels import Verdict, get
from qubix_kernels.kernel import BadInput

Matrix = NDArray[Any]
KERNEL = get("knn")


def search(queries: Matrix, data: Matrix, k: int) -> dict[str, Matrix]:
    return KERNEL.run("cpu", {"queries": queries, "data": data}, {"k": k})


def check(queries: Matrix, data: Matrix, k: int, outputs: dict[str, Matrix], seed: int = 3) -> Verdict:
    return KERNEL.verify({"queries": queries, "data": data}, {"k": k}, outputs, np.random.default_rng(seed))


def reference(queries: Matrix, data: Matrix, k: int) -> dict[str, Matrix]:
    apart = np.stack([np.square(data.astype(np.float64) - q).sum(axis=1) for q in queries.astype(np.float64)])
    indices = np.argsort(apart, axis=1, kind="stable")[:, :k]
    return {"indices": indices, "distances": np.take_along_axis(apart, indices, axis=1)}


def in_float32(queries: Matrix, data: Matrix, k: int) -> dict[str, Matrix]:
    """Another honest back end: sequential float32 sums of squared differences, as a GPU thread per pair takes them."""
    apart = np.zeros((len(queries), len(data)), np.float32)
    for d in range(data.shape[1]):
        apart += np.square(queries[:, d, None] - data[:, d])
    indices = np.argsort(apart, axis=1, kind="stable")[:, :k]
    return {"indices": indices, "distances": np.take_along_axis(apart, indices, axis=1)}


def normal(rng: np.random.Generator, q: int, n: int, d: int) -> tuple[Matrix, Matrix]:
    return rng.standard_normal((q, d)), rng.standard_normal((n, d))


def far_away(rng: np.random.Generator, q: int, n: int, d: int) -> tuple[Matrix, Matrix]:
    queries, data = normal(rng, q, n, d)
    return queries + 1e4, data + 1e4


def with_ties(rng: np.random.Generator, q: int, n: int, d: int) -> tuple[Matrix, Matrix]:
    return rng.integers(0, 3, (q, d)), rng.integers(0, 3, (n, d))


def all_equal(rng: np.random.Generator, q: int, n: int, d: int) -> tuple[Matrix, Matrix]:
    return np.full((q, d), 0.1), np.full((n, d), 0.1)


def one_outlier(rng: np.random.Generator, q: int, n: int, d: int) -> tuple[Matrix, Matrix]:
    queries, data = normal(rng, q, n, d)
    data[n // 2] *= 1e6
    return queries, data


def queries_in_data(rng: np.random.Generator, q: int, n: int, d: int) -> tuple[Matrix, Matrix]:
    data = rng.standard_normal((n, d))
    return data[rng.integers(0, n, q)], data


KINDS = [normal, far_away, with_ties, all_equal, one_outlier, queries_in_data]
SIZES = [(1, 1, 1, 1), (7, 13, 3, 13), (101, 97, 5, 1), (50, 300, 64, 10), (3, 211, 784, 5)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("back_end", [search, in_float32], ids=lambda f: f.__name__)
def test_honest_results_are_never_flagged(kind: Any, back_end: Any) -> None:
    """6 kinds x 2 back ends x 5 sizes x 2 seeds = 120 runs."""
    rng = np.random.default_rng(KINDS.index(kind))
    for q, n, d, k in SIZES * 2:
        queries, data = (x.astype(np.float32) for x in kind(rng, q, n, d))
        verdict = check(queries, data, k, back_end(queries, data, k), int(rng.integers(1 << 30)))
        assert verdict.accepted, (q, n, d, k, verdict)


@pytest.mark.parametrize("kind", KINDS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", SIZES)
def test_cpu_agrees_with_a_float64_reference_and_ties_go_to_the_lower_index(kind: Any, size: Any) -> None:
    q, n, d, k = size
    queries, data = (x.astype(np.float32) for x in kind(np.random.default_rng(5), q, n, d))
    found, exact = search(queries, data, k), reference(queries, data, k)
    np.testing.assert_allclose(found["distances"], exact["distances"], rtol=1e-6, atol=1e-30)
    np.testing.assert_array_equal(found["indices"], exact["indices"])


@functools.cache
def honest() -> tuple[Matrix, Matrix, dict[str, Matrix]]:
    queries, data = (x.astype(np.float32) for x in normal(np.random.default_rng(8), 400, 900, 24))
    return queries, data, search(queries, data, 6)


def swapped_neighbours(i: Matrix, d: Matrix) -> None:
    i[5, [0, 1]] = i[5, [1, 0]]


def swapped_with_distances(i: Matrix, d: Matrix) -> None:
    for array in (i, d):
        array[5, [0, 1]] = array[5, [1, 0]]


def wrong_distance(i: Matrix, d: Matrix) -> None:
    d[399, 5] *= 1.001


def half_distances(i: Matrix, d: Matrix) -> None:
    d[:] = d.astype(np.float16)


def duplicate(i: Matrix, d: Matrix) -> None:
    i[7, 3], d[7, 3] = i[7, 2], d[7, 2]


def index_past_the_end(i: Matrix, d: Matrix) -> None:
    i[0, 0] = 900


def negative_index(i: Matrix, d: Matrix) -> None:
    i[0, 0] -= 900


def nan_distance(i: Matrix, d: Matrix) -> None:
    d[3, 3] = np.nan


def infinite_distance(i: Matrix, d: Matrix) -> None:
    d[3, 5] = np.inf


def zeros(i: Matrix, d: Matrix) -> None:
    i[:], d[:] = np.arange(6), 0


def skipped_chunk(i: Matrix, d: Matrix) -> None:
    i[100:140], d[100:140] = 0, 0


def stale(i: Matrix, d: Matrix) -> None:
    i[:], d[:] = np.roll(i, 1, axis=0), np.roll(d, 1, axis=0)


CHEATS: list[tuple[Callable[[Matrix, Matrix], None], str]] = [
    (swapped_neighbours, "distance"),
    (swapped_with_distances, "order"),
    (wrong_distance, "distance"),
    (half_distances, "distance"),
    (duplicate, "duplicate"),
    (index_past_the_end, "range"),
    (negative_index, "range"),
    (nan_distance, "distance"),
    (infinite_distance, "distance"),
    (zeros, "distance"),
    (skipped_chunk, "duplicate"),
    (stale, "distance"),
]


@pytest.mark.parametrize(("cheat", "reason"), CHEATS, ids=[c.__name__ for c, _ in CHEATS])
def test_planted_cheats_are_caught(cheat: Any, reason: str) -> None:
    queries, data, outputs = honest()
    bad = {name: array.copy() for name, array in outputs.items()}
    cheat(bad["indices"], bad["distances"])
    verdict = check(queries, data, 6, bad)
    assert (verdict.accepted, verdict.reason) == (False, reason)
    assert check(queries, data, 6, outputs).accepted


def missing_nearest(share: float) -> tuple[Matrix, Matrix, dict[str, Matrix]]:
    """Honest distances of the neighbours after the nearest, for the first `share` of the queries."""
    queries, data, outputs = honest()
    later, count = search(queries, data, 7), int(share * len(queries))
    bad = {name: outputs[name].copy() for name in outputs}
    for name in bad:
        bad[name][:count] = later[name][:count, 1:]
    return queries, data, bad


def test_a_neighbour_missing_from_most_queries_is_caught() -> None:
    queries, data, bad = missing_nearest(0.6)
    for seed in range(5):
        assert check(queries, data, 6, bad, seed).reason == "missed_neighbour"


def test_a_neighbour_missing_from_some_queries_is_caught_as_often_as_stated() -> None:
    """32 queries are drawn: a share of 5 % escapes with probability 0.95^32 = 0.19, so 60 tries catch 48.4 +- 3."""
    queries, data, bad = missing_nearest(0.05)
    caught = sum(not check(queries, data, 6, bad, seed).accepted for seed in range(60))
    assert caught >= 36


def test_approximate_search_over_half_of_the_data_is_caught() -> None:
    queries, data, _ = honest()
    assert check(queries, data, 6, search(queries, data[:450], 6)).reason == "missed_neighbour"


@pytest.mark.parametrize("name", ["queries", "data"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_that_are_not_finite_are_refused(name: str, value: float) -> None:
    inputs = {"queries": np.ones((2, 3), np.float32), "data": np.ones((4, 3), np.float32)}
    inputs[name][1, 1] = value
    with pytest.raises(BadInput, match=name):
        KERNEL.run("cpu", inputs, {"k": 2})


def test_distances_that_overflow_are_infinite_and_ordered_by_their_exact_size() -> None:
    queries = np.zeros((1, 2), np.float32)
    data = np.array([[3e38, 0], [1, 0], [1e38, 1e38], [2, 0]], np.float32)
    found = search(queries, data, 4)
    assert found["indices"].tolist() == [[1, 3, 2, 0]]
    assert found["distances"].tolist() == [[1.0, 4.0, np.inf, np.inf]]
    assert check(queries, data, 4, found).accepted
    hidden = {name: array[:, [0, 2]] for name, array in found.items()}
    assert check(queries, data, 2, hidden).reason == "missed_neighbour"
