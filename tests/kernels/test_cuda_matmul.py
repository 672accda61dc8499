# SPDX-License-Identifier: Apache-2.0
"""matmul on a device, in the simulator: right by a wider reference at the edges of its tiles, accepted by its check."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qubix_kernels import get
from qubix_kernels.kernel import BadInput
from tests.kernels.simulator import Simulator

Matrix = NDArray[Any]
KERNEL = get("matmul")
# Tiles are 32 wide, or 128 where those are at least two; a step is 8 deep.
CASES = [
    ("float32", (1, 1, 1)),
    ("float32", (5, 13, 7)),
    ("float32", (33, 8, 31)),
    ("float32", (129, 9, 3)),
    ("float16", (31, 17, 33)),
    ("float16", (3, 7, 130)),
    ("float64", (13, 9, 11)),
]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator() as started:
        yield started


@pytest.mark.parametrize(("dtype", "shape"), CASES, ids=str)
def test_agrees_with_a_wider_reference_and_is_accepted(
    dtype: str, shape: tuple[int, int, int], simulator: Simulator
) -> None:
    (m, k, n), rng = shape, np.random.default_rng(4)
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    c = simulator.run("matmul", {"a": a, "b": b}, {})["c"]
    assert c.dtype == (np.float64 if dtype == "float64" else np.float32)
    exact = a.astype(np.longdouble) @ b.astype(np.longdouble)
    np.testing.assert_allclose(c, exact.astype(np.float64), rtol=0, atol=20 * k * np.finfo(c.dtype).eps)
    assert KERNEL.verify({"a": a, "b": b}, {}, {"c": c}, rng).accepted


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_refuses_what_the_cpu_refuses_in_the_same_words(name: str, value: float, simulator: Simulator) -> None:
    inputs = {"a": np.full((3, 4), 1e10, np.float32), "b": np.full((4, 5), 1e10, np.float32)}
    inputs[name][1, 2] = value
    with pytest.raises(BadInput) as on_cpu:
        KERNEL.run("cpu", inputs, {})
    with pytest.raises(BadInput) as on_device:
        simulator.run("matmul", inputs, {})
    assert str(on_device.value) == f"BadInput: {on_cpu.value}"


def test_float64_beyond_squares_is_neither_refused_nor_lost(simulator: Simulator) -> None:
    a, b = np.array([[1e160, 1.0], [1e-170, 0.0]]), np.array([[1e140], [3.0]])
    c = simulator.run("matmul", {"a": a, "b": b}, {})["c"]
    np.testing.assert_allclose(c, a @ b, rtol=1e-15)
    assert KERNEL.verify({"a": a, "b": b}, {}, {"c": c}, np.random.default_rng(0)).accepted
