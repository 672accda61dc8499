# SPDX-License-Identifier: Apache-2.0
"""knn: right by a float64 reference, ties included; how often a missing neighbour is noticed; overflow. The conformance
suite holds that honest results pass, and that cheats are caught."""

import functools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qubix_kernels import Verdict, get
from qubix_kernels.kernel import BadInput
from tests.kernels.conformance.knn import KINDS, normal

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


SIZES = [(1, 1, 1, 1), (7, 13, 3, 13), (101, 97, 5, 1), (50, 300, 64, 10), (3, 211, 784, 5)]


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
