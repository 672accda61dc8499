# SPDX-License-Identifier: Apache-2.0
"""Who straggles, and when somebody else should finish the work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.jobs import pace
from qubix_coordinator.jobs.pace import Seen, straggles, usual

SECOND = 1_000


def seen(seconds: float, done: int, first: float | None = None, units: int = 100, forecast_s: float = 10) -> Seen:
    """An attempt of 100 units of a tenth of a second each, in chunks of ten."""
    return Seen(
        units=units,
        done=done,
        forecast_ms=round(forecast_s * SECOND),
        chunk_units=10,
        observed_ms=round(seconds * SECOND),
        first_observed_ms=None if first is None else round(first * SECOND),
        first_units=None if first is None else 10,
        last_units=None if first is None else 10,
    )


@pytest.mark.parametrize(
    ("one", "slow"),
    [
        # As fast as agreed, half as fast, and slower than that.
        (seen(6, 60, 1), False),
        (seen(12, 60, 2), False),
        (seen(20, 60, 2), True),
        # Not a link yet: a chunk is a second's worth, and nobody is judged before five.
        (seen(4.9, 0), False),
        (seen(5.1, 0), True),
        # The first link came late, since inputs were fetched: only what follows counts.
        (seen(64, 40, 60), False),
        (seen(80, 40, 60), True),
    ],
)
def test_a_straggler_needs_more_than_twice_its_forecast(one: Seen, slow: bool) -> None:
    assert straggles(pace.pace(one, 0), 1.0) is slow


def test_fetching_inputs_is_not_straggling() -> None:
    assert straggles(pace.pace(seen(9, 0), 0), 1.0)
    assert not straggles(pace.pace(seen(9, 0), 60_000_000), 1.0)


def test_nobody_straggles_where_everybody_is_as_slow() -> None:
    """The kernel is dearer than it was priced."""
    slow = pace.pace(seen(20, 50, 2), 0)
    sibling = pace.pace(seen(21, 50, 2), 0)
    fast = pace.pace(seen(7, 60, 1), 0)
    assert straggles(slow, usual([]))
    assert not straggles(slow, usual([sibling]))
    assert straggles(slow, usual([sibling, fast]))
    assert usual([pace.pace(seen(1, 0), 0)]) == 1.0


def test_somebody_else_must_gain_more_than_it_costs() -> None:
    """Half is left and goes at a third of the speed: 12 s, as the chunk under way may be done at any moment."""
    one = pace.pace(seen(20, 50, 5), 0)
    assert one.rest_ms == 12_000
    assert pace.pays(one, 4_900, 1.0, 0)
    assert not pace.pays(one, 5_000, 1.0, 0)
    assert not pace.pays(one, 4_900, 1.1, 0), "the helper will be as much slower than it says as the others are"
    assert not pace.pays(one, 4_900, 1.0, 10_000_000), "and has the inputs to fetch"


@given(
    st.integers(1, 2**40),
    st.integers(0, 2**40),
    st.integers(0, 10**7),
    st.integers(1, 10**7),
    st.one_of(st.none(), st.integers(1, 100)),
)
def test_whatever_was_seen_makes_a_pace(units: int, done: int, observed: int, forecast: int, first: int | None) -> None:
    done = min(done, units)
    linked = None if first is None or not done else min(first, done)
    found = pace.pace(
        Seen(
            units=units,
            done=done if linked else 0,
            forecast_ms=forecast,
            chunk_units=min(units, 10),
            observed_ms=observed,
            first_observed_ms=None if linked is None else observed // 2,
            first_units=linked,
            last_units=linked,
        ),
        0,
    )
    assert 1 <= found.moved <= units
    assert 0 <= found.left < units
    assert found.rest_ms >= 0
    assert found.slowness >= 0
