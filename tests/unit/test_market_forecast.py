# SPDX-License-Identifier: Apache-2.0
"""How long it takes and what it costs."""

from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.market import forecast
from qubix_protocol.messages import KernelRate


def rate(flops_per_s: float = 1e9) -> KernelRate:
    return KernelRate(kernel="matmul", backend="cpu", flops_per_s=flops_per_s, bytes_per_s=1e9)


def test_the_forecast_is_the_slower_of_computing_and_moving() -> None:
    assert forecast.run_ms(rate(1e9), 2e9, 0) == 2_000
    assert forecast.run_ms(rate(1e12), 1, 3e9) == 3_000
    assert forecast.run_ms(KernelRate(kernel="x", backend="cpu", flops_per_s=0, bytes_per_s=0), 1, 1) is None
    assert forecast.run_ms(rate(5e-324), 1e300, 0) == forecast.RUN_MS_MAX


@given(st.floats(1e3, 1e15), st.floats(0, 1e18), st.integers(0, 10**12))
def test_the_band_contains_the_forecast(flops_per_s: float, flops: float, rate_qu: int) -> None:
    found = forecast.forecast(rate(flops_per_s), flops, 0, rate_qu)
    assert found is not None
    assert 1 <= found.cost_low_qu <= found.cost_qu <= found.cost_high_qu
