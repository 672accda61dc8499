# SPDX-License-Identifier: Apache-2.0
"""knn on a device, in the simulator: right by a float64 reference, ties to the lower index, accepted by its check."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qubix_kernels import get
from qubix_kernels.kernel import BadInput
from tests.kernels.simulator import Simulator

Matrix = NDArray[Any]
KERNEL = get("knn")


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator() as started:
        yield started


def normal(rng: np.random.Generator, q: int, n: int, d: int) -> tuple[Matrix, Matrix]:
    return rng.standard_normal((q, d)), rng.standard_normal((n, d))


def far_away(rng: np.random.Generator, q: int, n: int, d: int) -> tuple[Matrix, Matrix]:
    queries, data = normal(rng, q, n, d)
    return queries + 1e4, data + 1e4


def with_ties(rng: np.random.Generator, q: int, n: int, d: int) -> tuple[Matrix, Matrix]:
    return rng.integers(0, 3, (q, d)), rng.integers(0, 3, (n, d))


def all_equal(rng: np.random.Generator, q: int, n: int, d: int) -> tuple[Matrix, Matrix]:
    return np.full((q, d), 0.5), np.full((n, d), 0.25)


def nearer_and_nearer(rng: np.random.Generator, q: int, n: int, d: int) -> tuple[Matrix, Matrix]:
    """Every row of a later round is a candidate: the lists run over, and the round is done again in smaller ones."""
    queries, data = normal(rng, 1, n, d)
    return queries, data[np.argsort(-np.square(data - queries).sum(axis=1))]


# A tile is 64 queries by 64 rows, 8 dimensions a step, 256 to a sum; lists of 256 serve k up to 64, of 4096 above.
CASES = [
    (normal, (1, 1, 1, 1)),
    (normal, (7, 13, 3, 13)),
    (far_away, (9, 31, 17, 4)),
    (with_ties, (3, 67, 2, 6)),
    (normal, (65, 2, 1, 1)),
    (normal, (2, 9, 275, 3)),
    (normal, (1, 71, 2, 66)),
    (all_equal, (2, 260, 2, 6)),
    (nearer_and_nearer, (1, 400, 2, 64)),
]


@pytest.mark.parametrize(("kind", "size"), CASES, ids=[f"{kind.__name__}-{size}" for kind, size in CASES])
def test_agrees_with_a_float64_reference_and_is_accepted(
    kind: Callable[..., tuple[Matrix, Matrix]], size: tuple[int, int, int, int], simulator: Simulator
) -> None:
    (q, n, d, k), rng = size, np.random.default_rng(4)
    queries, data = (x.astype(np.float32) for x in kind(rng, q, n, d))
    found = simulator.run("knn", {"queries": queries, "data": data}, {"k": k})
    apart = np.stack([np.square(data.astype(np.float64) - one).sum(axis=1) for one in queries.astype(np.float64)])
    order = np.argsort(apart, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found["indices"], order)
    np.testing.assert_allclose(found["distances"], np.take_along_axis(apart, order, axis=1), rtol=1e-5)
    assert found["indices"].dtype == np.int64
    assert KERNEL.verify({"queries": queries, "data": data}, {"k": k}, found, rng).accepted


def test_distances_that_overflow_are_infinite_and_the_lowest_indices_stand_for_them(simulator: Simulator) -> None:
    queries = np.zeros((1, 2), np.float32)
    data = np.array([[3e38, 0], [1, 0], [1e38, 1e38], [2, 0]], np.float32)
    found = simulator.run("knn", {"queries": queries, "data": data}, {"k": 4})
    assert found["indices"].tolist() == [[1, 3, 0, 2]]
    assert found["distances"].tolist() == [[1.0, 4.0, np.inf, np.inf]]
    assert KERNEL.verify({"queries": queries, "data": data}, {"k": 4}, found, np.random.default_rng(0)).accepted


@pytest.mark.parametrize("name", ["queries", "data"])
def test_refuses_what_the_cpu_refuses_in_the_same_words(name: str, simulator: Simulator) -> None:
    inputs = {"queries": np.ones((2, 3), np.float32), "data": np.ones((4, 3), np.float32)}
    inputs[name][1, 1] = np.nan
    with pytest.raises(BadInput) as on_cpu:
        KERNEL.run("cpu", inputs, {"k": 2})
    with pytest.raises(BadInput) as on_device:
        simulator.run("knn", inputs, {"k": 2})
    assert str(on_device.value) == f"BadInput: {on_cpu.value}"
