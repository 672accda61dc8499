# SPDX-License-Identifier: Apache-2.0
"""What past work says of the next (trust.md C5): how far one failure moves it, what time does, what gains nothing."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.market import reputation as rep
from qubix_coordinator.market.reputation import Outcome, Record, Uptime, What

UNIT = 100
NOW = 1_700_000_000_000
GAP = 90_000
HOUR = 3_600_000


def work(what: What = What.RIGHT, worth_qu: int = UNIT, at_ms: int = NOW, **changes: object) -> Outcome:
    plain: dict[str, object] = {"counts": True, "run_ms": 1_000, "forecast_ms": 1_000}
    return Outcome(what, worth_qu, at_ms, **(plain | changes))  # type: ignore[arg-type]


def after(*outcomes: Outcome) -> float:
    return rep.reliability(rep.of_outcomes(outcomes, UNIT), 1.0)


def good(jobs: int, **changes: object) -> list[Outcome]:
    return [work(what, **changes) for _ in range(jobs) for what in (What.RIGHT, What.FINISHED)]  # type: ignore[arg-type]


outcomes = st.builds(
    Outcome,
    what=st.sampled_from(list(What)),
    worth_qu=st.integers(0, 10**12),
    at_ms=st.integers(NOW, NOW + 200 * rep.DAY_MS),
    counts=st.booleans(),
    run_ms=st.integers(0, 10**9),
    forecast_ms=st.integers(1, 10**9),
)


def test_nothing_known_is_no_reliability() -> None:
    assert after() == 0.0
    assert after(work(What.FAILED)) == after(work(What.WRONG)) == 0.0
    assert after(work(What.RIGHT)) == 0.0, "right, and never seen to finish anything"


@pytest.mark.parametrize(
    ("jobs", "spotless", "one_failed", "one_wrong"),
    [(3, 0.276, 0.187, 0.085), (10, 0.619, 0.533, 0.358), (100, 0.948, 0.932, 0.882), (1000, 0.995, 0.993, 0.987)],
)
def test_how_far_one_failure_moves_it(jobs: int, spotless: float, one_failed: float, one_wrong: float) -> None:
    """One blip ends nothing: from 100 good ones, a failure costs 2 points and a wrong result 7."""
    assert after(*good(jobs)) == pytest.approx(spotless, abs=0.001)
    assert after(*good(jobs), work(What.FAILED)) == pytest.approx(one_failed, abs=0.001)
    assert after(*good(jobs), work(What.WRONG)) == pytest.approx(one_wrong, abs=0.001)


def test_a_blip_is_made_good() -> None:
    before, hurt = after(*good(50)), after(*good(50), work(What.FAILED))
    assert hurt < before <= after(*good(50), work(What.FAILED), *good(40))


def test_work_for_related_consumers_gains_nothing_and_fails_all_the_same() -> None:
    own = [work(what, worth_qu=10**9, counts=False) for _ in range(100) for what in (What.RIGHT, What.FINISHED)]
    assert rep.of_outcomes(own, UNIT) == Record()
    assert after(*good(5), *own) == after(*good(5))
    assert after(*good(5), work(What.FAILED, counts=False)) < after(*good(5))


def test_cutting_work_up_gains_nothing() -> None:
    whole = rep.of_outcomes([work(worth_qu=5 * UNIT)], UNIT)
    cut = rep.of_outcomes([work(worth_qu=1) for _ in range(5 * UNIT)], UNIT)
    assert whole.right == pytest.approx(cut.right)


def test_failing_at_small_ones_costs_as_much_as_the_usual_piece() -> None:
    dear = good(10, worth_qu=2 * UNIT)
    assert after(*dear, work(What.FAILED, worth_qu=0)) == after(*dear, work(What.FAILED, worth_qu=2 * UNIT))


def test_no_single_piece_makes_a_provider() -> None:
    assert after(*good(1, worth_qu=10**12)) == after(*good(1, worth_qu=int(rep.WEIGHT_MAX) * UNIT)) < 0.65


def test_a_lost_dispute_counts_like_a_wrong_result_and_a_won_one_gains_nothing() -> None:
    assert after(*good(9), work(What.DISPUTE_LOST)) == after(*good(9), work(What.WRONG))
    assert after(*good(9), work(What.DISPUTE_WON)) == after(*good(9))


def test_lateness_costs_at_most_a_tenth() -> None:
    prompt, late = after(*good(50)), after(*good(50, run_ms=9_000))
    assert late == pytest.approx(prompt * 0.9)
    assert after(*good(50, run_ms=1_250)) == prompt


def test_a_record_halves_in_a_month() -> None:
    record = rep.of_outcomes(good(100), UNIT)
    later = rep.faded(record, NOW + rep.HALF_LIFE_MS)
    assert later.right == pytest.approx(record.right / 2)
    assert rep.reliability(later, 1.0) < rep.reliability(record, 1.0)
    assert rep.reliability(rep.faded(record, NOW + 400 * rep.HALF_LIFE_MS), 1.0) == pytest.approx(0.0, abs=1e-6)
    assert rep.faded(record, NOW - 1) == record


@given(st.lists(outcomes, max_size=30), st.floats(0, 1))
def test_it_stays_a_share_whatever_happened(history: list[Outcome], available: float) -> None:
    record = rep.of_outcomes(sorted(history, key=lambda one: one.at_ms), UNIT)
    assert 0.0 <= rep.reliability(record, available) <= 1.0
    assert all(math.isfinite(getattr(record, name)) and getattr(record, name) >= 0 for name in ("right", "slowness"))
    assert rep.punctuality(record) <= 1.0


@given(st.lists(outcomes, max_size=20), st.integers(0, 10**6), st.integers(0, 100))
def test_good_work_never_hurts_and_bad_work_never_helps(history: list[Outcome], worth_qu: int, available: int) -> None:
    record = rep.of_outcomes(sorted(history, key=lambda one: one.at_ms), UNIT)
    now_ms, there = record.at_ms or NOW, available / 100
    before = rep.reliability(rep.faded(record, now_ms), there)
    better = rep.fold(record, work(What.RIGHT, worth_qu, now_ms), UNIT)
    assert rep.reliability(better, there) >= before - 1e-9
    for bad in (What.FAILED, What.WRONG, What.DISPUTE_LOST):
        assert rep.reliability(rep.fold(record, work(bad, worth_qu, now_ms), UNIT), there) <= before + 1e-9


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_bound_lies_below_the_share(good_: float, bad: float) -> None:
    found = rep.lower_bound(good_, bad)
    assert 0.0 <= found <= (good_ / (good_ + bad) if good_ + bad else 0.0) + 1e-9


def offered(times: list[int]) -> Uptime:
    up = Uptime()
    for at_ms in times:
        up = rep.seen(up, at_ms, GAP)
    return up


def test_offers_that_keep_coming_are_full_availability() -> None:
    up = offered([NOW + n * 30_000 for n in range(2 * 60 * 24)])
    assert rep.availability(up, up.seen_ms + 30_000, GAP) == pytest.approx(1.0)


def test_away_for_half_of_the_time_is_half_and_the_latest_counts_most() -> None:
    day = [NOW + hour * HOUR + n * 60_000 for hour in range(0, 240, 2) for n in range(61)]
    assert rep.availability(offered(day), NOW + 240 * HOUR, GAP) == pytest.approx(0.5, abs=0.02)
    long_ago = offered([NOW + n * 60_000 for n in range(60 * 24 * 5)])
    gone = [rep.availability(long_ago, long_ago.seen_ms + days * rep.DAY_MS, GAP) for days in (0, 1, 3, 30)]
    assert gone == sorted(gone, reverse=True)
    assert gone[0] == pytest.approx(1.0)
    assert gone[2] < 0.6
    assert gone[3] < 0.01


def test_a_clock_that_is_put_back_gains_no_time() -> None:
    up = offered([NOW, NOW + 30_000])
    back = rep.seen(up, NOW - HOUR, GAP)
    assert back.up_ms == up.up_ms
    assert rep.availability(back, NOW, GAP) <= 1.0
    assert rep.availability(Uptime(), NOW, GAP) == 0.0
