# SPDX-License-Identifier: Apache-2.0
"""How long it takes and what it costs: by the device's own rates, and by what past runs were off."""

import math
import random
from collections.abc import Sequence
from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.jobs import billing
from qubix_coordinator.market import forecast, history
from qubix_coordinator.market.forecast import History, Kept, Learned, Work
from qubix_coordinator.market.history import Fit
from qubix_protocol.messages import KernelRate

HOUR = 3_600_000
DEVICE = uuid5(UUID(int=0), "device")


def rate(flops_per_s: float = 1e9) -> KernelRate:
    return KernelRate(kernel="matmul", backend="cpu", flops_per_s=flops_per_s, bytes_per_s=1e9)


def kept(
    ratios: Sequence[float], *, listing: str = "device", size: int = 5, pace: float = 1e9, model: str = "m"
) -> Kept:
    fit = history.fit_of(ratios)
    return Kept(uuid5(UUID(int=0), listing), model, "cpu", size, pace, fit, fit)


def told(past: History, seconds: float = 1.0, claim: float = 1e9, qu_per_h: int = HOUR) -> forecast.Forecast:
    """For work of so many seconds at 1 GF/s, on DEVICE."""
    one, work = rate(claim), Work(seconds * 1e9, 0)
    rated = forecast.rated_ms(one, work)
    assert rated is not None
    found = forecast.forecast(one, work, qu_per_h, past.of(DEVICE, "m", one, rated))
    assert found is not None
    return found


def test_the_forecast_is_the_slower_of_computing_and_moving() -> None:
    assert forecast.rated_ms(rate(1e9), Work(2e9, 0)) == 2_000
    assert forecast.rated_ms(rate(1e12), Work(1, 3e9)) == 3_000
    assert forecast.rated_ms(KernelRate(kernel="x", backend="cpu", flops_per_s=0, bytes_per_s=0), Work(1, 1)) is None
    assert forecast.rated_ms(rate(5e-324), Work(1e300, 0)) == forecast.RUN_MS_MAX


fits = st.builds(
    lambda runs, mid, below, above: Fit(runs, mid, mid - below, mid + above),
    st.integers(0, 32),
    st.floats(-5, 5),
    st.floats(0, 5),
    st.floats(0, 5),
)
lessons = st.builds(Learned, fits, fits, fits, fits, fits, st.floats(-3, 3), st.floats(-3, 3))


@given(st.floats(1e3, 1e15), st.floats(0, 1e18), st.integers(0, 10**12), lessons, st.integers(1, 1000), st.data())
def test_the_band_contains_the_forecast_and_the_cost_whatever_is_billed(
    flops_per_s: float, flops: float, rate_qu: int, learned: Learned, units: int, data: st.DataObject
) -> None:
    """trust.md M2, whatever was learned: what is frozen and what the cap is held against are one bound."""
    found = forecast.forecast(rate(flops_per_s), Work(flops, 0, 10**9), rate_qu, learned)
    assert found is not None
    assert 1 <= found.cost_low_qu <= found.cost_qu <= found.cost_high_qu
    assert 1 <= found.run_low_ms <= found.run_ms <= found.run_high_ms
    assert 1 <= found.around_low_ms <= found.around_ms <= found.around_high_ms
    assert found.total_low_ms <= found.total_ms <= found.total_high_ms
    done, claimed = data.draw(st.integers(1, units)), data.draw(st.integers(0, 2**53))
    billed = billing.billed_ms(
        [billing.Chunk(done, claimed, claimed)], forecast_ms=found.agreed_ms, attempt_units=units
    )
    assert billing.charge_qu(rate_qu, billed, units=done, hold_left_qu=2**60) <= found.cost_high_qu


@given(st.floats(1, 1e9), lessons)
def test_history_moves_a_forecast_within_bounds_and_takes_no_pay_from_who_is_as_fast_as_measured(
    rated_ms: float, learned: Learned
) -> None:
    """A consumer whose jobs are quicker than they look, or a device that dawdles, moves it no further than this."""
    found = forecast.forecast(rate(1e9), Work(rated_ms * 1e6, 0), HOUR, learned)
    assert found is not None
    assert (rated_ms + 1) / 4 - 1 <= found.run_ms <= 4 * (rated_ms + 1) + 1
    assert found.agreed_ms * 1.25 >= found.rated_ms
    assert found.agreed_ms >= found.run_ms


def test_without_history_the_band_is_wide() -> None:
    found = told(History())
    assert (found.run_ms, found.run_low_ms, found.run_high_ms) == (1_000, 666, 1_501)
    assert found.around_low_ms < found.around_ms == forecast.AROUND_MS < found.around_high_ms


def test_its_own_runs_correct_it_and_narrow_the_band() -> None:
    narrow = [0.5 + 0.01 * one for one in range(-5, 6)]
    widths = []
    for runs in (1, 3, 11):
        found = told(History([kept(narrow[:runs])]))
        widths.append(found.run_high_ms / found.run_low_ms)
        assert 1_000 < found.run_ms <= 1_700
    assert widths == sorted(widths, reverse=True)
    full = told(History([kept(narrow * 3)]))
    assert full.run_ms == pytest.approx(1_000 * math.exp(0.5), rel=0.05)
    assert full.run_high_ms / full.run_low_ms < 1.25


def test_a_band_has_a_floor() -> None:
    found = told(History([kept([0.0] * 32)]), seconds=1_000.0)
    assert found.run_high_ms / found.run_ms >= 1.04
    assert found.run_ms / found.run_low_ms >= 1.04


def test_others_speak_only_for_whom_nothing_is_known() -> None:
    model = [kept([0.3] * 32, listing=f"m{one}") for one in range(8)]
    apart = [kept([-0.3] * 32, listing=f"x{one}", model="x") for one in range(8)]
    nobody, strangers, alike = told(History()), told(History(apart)), told(History(apart + model))
    assert strangers.run_ms < nobody.run_ms < alike.run_ms < 1_000 * math.exp(0.3)
    own = told(History([*apart, *model, kept([0.0] * 32)]))
    assert own.run_ms == pytest.approx(1_000, rel=0.03)


def test_one_loud_device_is_one_voice() -> None:
    loud = [kept([3.0] * 32, listing="loud", size=size) for size in range(10)]
    quiet = [kept([0.0], listing=f"q{one}", size=size) for one in range(4) for size in range(10)]
    assert told(History(loud + quiet)).run_ms == pytest.approx(1_000, rel=0.05)
    assert told(History(loud)).run_ms <= 1_000 * math.exp(forecast.OTHERS_MAX) + 1


def test_sizes_go_over_into_each_other() -> None:
    """Small work is slower for each operation: between two sizes the forecast lies between what they say."""
    past = History([kept([1.0] * 32, size=2), kept([0.0] * 32, size=6)])
    off = [told(past, seconds=4.0**size / 1000).run_ms / 4.0**size for size in (2, 3, 4, 5, 6)]
    assert off == sorted(off, reverse=True)
    assert off[0] == pytest.approx(math.e, rel=0.1)
    assert off[-1] == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("claim", [1.25e8, 5e8, 1e9, 2e9, 8e9])
def test_what_a_device_says_today_does_not_outweigh_what_it_did(claim: float) -> None:
    found = told(History([kept([0.0] * 32, pace=1e9)]), claim=claim)
    least, most = 1_000 / 4 * (1e9 / claim), 1_000 * 4 * (1e9 / claim)
    assert found.run_ms == pytest.approx(min(max(1_000, least), most), rel=0.15)


@given(st.lists(st.floats(-1e9, 1e9), max_size=100))
def test_only_the_newest_are_kept_and_none_is_boundless(ratios: list[float]) -> None:
    found: list[float] = []
    for one in ratios:
        found = history.remember(found, one)
    assert len(found) == min(len(ratios), history.RUNS_KEPT)
    assert all(abs(one) <= history.RATIO_MAX for one in found)
    fit = history.fit_of(found)
    assert fit.low <= fit.mid <= fit.high


@pytest.mark.parametrize("noise", [0.05, 0.2, 0.6])
def test_the_learned_band_holds_eight_of_ten_runs(noise: float) -> None:
    """A device that is off by a constant and by noise, forecast before each run from the runs before it."""
    draw, ratios, inside = random.Random(7), list[float](), 0
    for run in range(400):
        found = told(History([kept(ratios)] if ratios else []))
        actual_ms = 1_000 * math.exp(0.4 + draw.gauss(0, noise))
        if run >= 40:
            inside += found.run_low_ms <= actual_ms <= found.run_high_ms
        ratios = history.remember(ratios, history.ratio(actual_ms, 1_000))
    assert 0.72 <= inside / 360 <= 0.95


def test_one_slow_afternoon_is_forgotten() -> None:
    slow = [math.log(3)] * 40
    for _ in range(history.RUNS_KEPT):
        slow = history.remember(slow, 0.0)
    assert told(History([kept(slow)])).run_ms == pytest.approx(1_000, rel=0.01)


def test_the_hour_is_the_median_of_the_newest_runs_and_fades() -> None:
    def hour(ratios: list[float], minutes: float = 0) -> float:
        return history.lately(ratios, round(minutes * 60_000))

    assert hour([]) == 0
    assert hour([0.6]) == pytest.approx(0.3), "one run is half a proof"
    assert hour([0.0, 0.0, 3.0, 0.1, 0.0]) == 0, "one stumble is none"
    assert hour([0.6] * 5) == pytest.approx(0.5)
    assert hour([0.6] * 5, minutes=10) == pytest.approx(0.25)
    assert hour([9.0] * 5) == pytest.approx(history.LATELY_MAX)
    assert len(history.remember_lately([0.0] * 5, 1.0)) == history.LATELY_RUNS
