# SPDX-License-Identifier: Apache-2.0
"""When a job is expected to end (R4.3, P7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.jobs.views import expected_ms

SECOND = 1_000
BEGAN = 10**12


def finish_s(fraction: float, elapsed_s: float, forecast_s: float = 10) -> float:
    return (
        expected_ms(round(forecast_s * SECOND), fraction, BEGAN, BEGAN + round(elapsed_s * SECOND)) - BEGAN
    ) / SECOND


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_as_forecast_it_ends_when_it_was_said_all_along(fraction: float) -> None:
    assert finish_s(fraction, 10 * fraction) == pytest.approx(10, abs=0.01)


def test_a_slow_start_is_no_alarm_and_a_slow_run_is_told_in_time() -> None:
    assert finish_s(0.01, 2.0) < 15, "not 200 s because the inputs took two"
    told = [finish_s(part / 10, 2 * part) for part in range(11)]
    assert told[-1] == pytest.approx(20)
    assert told == sorted(told), "it moves one way, towards what it will be"


@given(st.integers(1, 10**9), st.floats(0, 1), st.integers(0, 10**9), st.integers(0, 10**6))
def test_it_is_never_past_and_time_alone_never_brings_it_nearer(
    forecast_ms: int, fraction: float, elapsed_ms: int, later_ms: int
) -> None:
    now = BEGAN + elapsed_ms
    found = expected_ms(forecast_ms, fraction, BEGAN, now)
    assert found >= now
    assert expected_ms(forecast_ms, fraction, BEGAN, now + later_ms) >= found
