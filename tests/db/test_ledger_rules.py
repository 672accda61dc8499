# SPDX-License-Identifier: Apache-2.0
"""What is owed (trust.md M1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.ledger.rules import owed_qu, split_fee


@pytest.mark.parametrize(
    ("rate", "billed_ms", "chunks", "owed"),
    [
        (3_600_000, 1, 1, 1),
        (3_600_000, 1_500, 1, 1_500),
        (100, 3_600_000, 1, 100),
        (100, 3_599_999, 1, 99),
        (1, 1, 1, 1),
        (0, 0, 1, 1),
        (1, 1, 0, 0),
        (10**12, 3_600_000, 3, 10**12),
    ],
)
def test_owed_is_floored_and_at_least_one_for_accepted_work(rate: int, billed_ms: int, chunks: int, owed: int) -> None:
    assert owed_qu(rate, billed_ms, accepted_chunks=chunks) == owed


@given(st.integers(0, 10**12), st.integers(0, 10**9), st.integers(0, 10**9))
def test_more_time_never_costs_less_and_rounding_costs_under_one_qu(rate: int, first_ms: int, more_ms: int) -> None:
    whole = owed_qu(rate, first_ms + more_ms, accepted_chunks=0)
    parts = owed_qu(rate, first_ms, accepted_chunks=0) + owed_qu(rate, more_ms, accepted_chunks=0)
    assert owed_qu(rate, first_ms) <= owed_qu(rate, first_ms + more_ms)
    assert 0 <= whole - parts <= 1


@given(st.integers(0, 10**15), st.integers(0, 10_000))
def test_the_fee_comes_out_of_what_is_owed(owed: int, fee_bps: int) -> None:
    paid_qu, fee_qu = split_fee(owed, fee_bps)
    assert paid_qu + fee_qu == owed
    assert 0 <= fee_qu <= owed
    assert fee_qu * 10_000 <= owed * fee_bps < (fee_qu + 1) * 10_000


@pytest.mark.parametrize(("owed", "fee_bps"), [(-1, 0), (1, -1), (1, 10_001)])
def test_impossible_fees_are_refused(owed: int, fee_bps: int) -> None:
    with pytest.raises(ValueError):
        split_fee(owed, fee_bps)


@pytest.mark.parametrize(("rate", "billed_ms"), [(-1, 1), (1, -1)])
def test_negative_rates_and_times_are_refused(rate: int, billed_ms: int) -> None:
    with pytest.raises(ValueError):
        owed_qu(rate, billed_ms)
