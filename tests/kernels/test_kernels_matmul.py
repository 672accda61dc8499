# SPDX-License-Identifier: Apache-2.0
"""matmul: right by a float64 reference, zeros beside huge columns, what is refused, sums of float16. The conformance
suite holds that honest results pass in every order of sums, and that cheats are caught."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qubix_kernels import Verdict, get
from qubix_kernels.kernel import BadInput
from tests.kernels.conformance.matmul import (
    alternating,
    backwards,
    constant,
    in_lanes,
    normal,
    one_by_one,
    positive,
    sparse,
)

Matrix = NDArray[Any]
KERNEL = get("matmul")


def check(a: Matrix, b: Matrix, c: Matrix, seed: int = 9) -> Verdict:
    return KERNEL.verify({"a": a, "b": b}, {}, {"c": c}, np.random.default_rng(seed))


def run(a: Matrix, b: Matrix) -> Matrix:
    return KERNEL.run("cpu", {"a": a, "b": b}, {})["c"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 13, 7), (17, 1, 3), (31, 257, 101), (128, 64, 1)])
def test_agrees_with_a_wider_reference(shape: tuple[int, int, int], dtype: str) -> None:
    m, k, n = shape
    a, b = (x.astype(dtype) for x in normal(np.random.default_rng(3), m, k, n))
    exact = a.astype(np.longdouble) @ b.astype(np.longdouble)
    np.testing.assert_allclose(run(a, b), exact.astype(np.float64), rtol=0, atol=50 * k * np.finfo(dtype).eps)


def test_zeros_beside_a_huge_column_are_caught() -> None:
    rng = np.random.default_rng(1)
    a, b = (x.astype(np.float32) for x in normal(rng, 200, 200, 200))
    b[:, 50] *= 1e12
    c = run(a, b)
    assert check(a, b, c).accepted
    c[7, :50] = 0
    assert check(a, b, c).reason == "residual"


def test_values_in_a_zero_column_or_row_are_caught() -> None:
    rng = np.random.default_rng(1)
    a, b = (x.astype(np.float32) for x in normal(rng, 20, 30, 40))
    a[4], b[:, 6] = 0, 0
    c = run(a, b)
    assert check(a, b, c).accepted
    for place in ((2, 6), (4, 3)):
        bad = c.copy()
        bad[place] = 1e-3
        assert check(a, b, bad).reason == "residual"


def test_float32_passed_off_as_float64_is_caught() -> None:
    a, b = normal(np.random.default_rng(2), 100, 300, 100)
    narrow = (a.astype(np.float32) @ b.astype(np.float32)).astype(np.float64)
    assert check(a, b, run(a, b)).accepted
    assert check(a, b, narrow).reason == "residual"


def test_suspicion_that_rounding_explains_is_settled_by_recomputing() -> None:
    """Equal terms round the same way in each step: honest, and far over the screening's bound."""
    a, b = np.full((60, 1500), 0.1, np.float32), np.full((1500, 40), 0.1, np.float32)
    verdict = check(a, b, one_by_one(a, b))
    assert verdict.accepted
    assert verdict.measured["suspicious_rows"] == 60
    assert verdict.measured["error_over_tolerance"] < 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("place", ["a", "b"])
def test_inputs_that_are_not_finite_or_could_overflow_are_refused(place: str, value: float) -> None:
    inputs = {"a": np.full((3, 4), 1e10, np.float32), "b": np.full((4, 5), 1e10, np.float32)}
    inputs[place][1, 2] = value
    with pytest.raises(BadInput, match=place):
        KERNEL.run("cpu", inputs, {})
    verdict = KERNEL.verify(inputs, {}, {"c": np.zeros((3, 5), np.float32)}, np.random.default_rng(0))
    assert (verdict.accepted, verdict.reason) == (False, "bad_input")


@pytest.mark.parametrize("order", [one_by_one, backwards, in_lanes], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", [normal, positive, constant, alternating, sparse], ids=lambda f: f.__name__)
def test_honest_float16_jobs_are_accepted_and_summed_in_float32(kind: Any, order: Any) -> None:
    rng = np.random.default_rng(7)
    for m, k, n in ((1, 1, 1), (64, 97, 128), (90, 600, 70)):
        a, b = (x.astype(np.float16) for x in kind(rng, m, k, n))
        wide_a, wide_b = a.astype(np.float32), b.astype(np.float32)
        for c in (run(a, b), order(wide_a, wide_b)):
            assert c.dtype == np.float32
            assert check(a, b, c, int(rng.integers(1 << 30))).accepted, (m, k, n)


@pytest.mark.parametrize("cheat", ["float16 sums", "float16 result", "short sum", "float32 form of nothing"])
def test_cheats_on_float16_jobs_are_caught(cheat: str) -> None:
    a, b = (x.astype(np.float16) for x in normal(np.random.default_rng(8), 256, 512, 256))
    c = {
        "float16 sums": lambda: one_by_one(a, b).astype(np.float32),
        "float16 result": lambda: run(a, b).astype(np.float16).astype(np.float32),
        "short sum": lambda: run(a[:, :511], b[:511]),
        "float32 form of nothing": lambda: np.zeros((256, 256), np.float32),
    }[cheat]()
    verdict = check(a, b, c)
    assert (verdict.accepted, verdict.reason) == (False, "residual")
    assert check(a, b, run(a, b)).accepted


def test_a_float16_job_may_not_answer_in_float16() -> None:
    a = b = np.ones((8, 8), np.float16)
    assert check(a, b, run(a, b).astype(np.float16)).reason == "shape"


def test_float16_that_is_not_finite_is_refused_and_its_widest_products_are_not() -> None:
    a = np.full((2, 3), 65504, np.float16)
    assert run(a, a.T.copy())[0, 0] == 3 * 65504.0**2
    a[1, 1] = np.inf
    with pytest.raises(BadInput, match="a contains"):
        run(a, np.ones((3, 2), np.float16))
