# SPDX-License-Identifier: Apache-2.0
"""What every run takes besides its work, told from examples of several sizes."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qubix_node.rates import Example, rate_of

FLOPS = (1e7, 6.4e8, 5.12e9)
"""Of the product at three sizes: 64 times, and 8 times the one before."""


def example(flops: float, overhead_s: float) -> Example:
    return Example(flops, flops / 100, overhead_s + flops / 5e10)


@pytest.mark.parametrize("overhead_s", [0.0, 0.002, 0.05])
def test_overhead_and_rate_are_told_apart(overhead_s: float) -> None:
    found = rate_of("matmul", "cpu", [example(one, overhead_s) for one in FLOPS])
    assert found.overhead_s == pytest.approx(overhead_s, abs=1e-9)
    assert found.flops_per_s == pytest.approx(5e10)


def test_a_small_example_that_was_held_up_is_not_taken_for_overhead() -> None:
    small, middle, large = (example(one, 0.002) for one in FLOPS)
    held_up = Example(small.flops, small.bytes_moved, small.run_s + 1.0)
    assert rate_of("matmul", "cpu", [held_up, middle, large]).overhead_s == pytest.approx(0.002, abs=1e-6)


def test_examples_of_one_size_tell_none() -> None:
    found = rate_of("matmul", "cpu", [Example(2e9, 1e6, 0.5), Example(2e9, 1e6, 0.25)])
    assert (found.overhead_s, found.flops_per_s) == (0.0, 8e9)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.floats(0, 1e14), st.floats(0, 1e11), st.floats(1e-6, 60)), min_size=1, max_size=8))
def test_whatever_was_measured_makes_a_rate(ran: list[tuple[float, float, float]]) -> None:
    found = rate_of("matmul", "cpu", [Example(*one) for one in ran])
    assert 0 <= found.overhead_s <= min(max(run_s for _, _, run_s in ran), 10.0)
    assert 0 <= found.flops_per_s <= 1e21
    assert 0 <= found.bytes_per_s <= 1e18
