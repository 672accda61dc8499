# SPDX-License-Identifier: Apache-2.0
"""What a chunk costs, and which units are left."""

from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.jobs import billing
from qubix_coordinator.jobs.billing import Chunk
from qubix_protocol.messages import Range
from qubix_protocol.units import CHUNKS_MAX

HOUR_MS = 3_600_000


@st.composite
def chains(draw: st.DrawFn) -> list[Chunk]:
    """Links of one attempt: observed time is cumulative and never falls."""
    observed, chain = 0, []
    for _ in range(draw(st.integers(1, 12))):
        observed += draw(st.integers(0, 5_000))
        chain.append(Chunk(draw(st.integers(1, 50)), draw(st.integers(0, 10_000)), observed))
    return chain


@given(chains(), st.integers(1, 100_000), st.integers(0, 10**9), st.integers(1, 10**6))
def test_billing_is_monotone_and_bounded(chain: list[Chunk], forecast_ms: int, rate: int, hold_qu: int) -> None:
    """trust.md M2: each prefix bills at most the claim, the observation and 1.25 × the forecast, and never less."""
    total = sum(chunk.units for chunk in chain)
    billed_before, charge_before = 0, 0
    for count in range(len(chain) + 1):
        prefix = chain[:count]
        billed = billing.billed_ms(prefix, forecast_ms=forecast_ms, attempt_units=total)
        units = sum(chunk.units for chunk in prefix)
        charge = billing.charge_qu(rate, billed, units=units, hold_left_qu=hold_qu)
        assert billed_before <= billed <= sum(chunk.claimed_ms for chunk in prefix)
        assert billed <= (prefix[-1].observed_ms if prefix else 0)
        assert billed * 4 * total <= forecast_ms * 5 * units
        assert charge_before <= charge <= hold_qu
        assert (charge > 0) == (count > 0)
        billed_before, charge_before = billed, charge


def test_dawdling_earns_nothing() -> None:
    honest = [Chunk(10, 1_000, 1_000)]
    dawdling = [Chunk(10, 60_000, 60_000)]
    assert billing.billed_ms(honest, forecast_ms=1_000, attempt_units=10) == 1_000
    assert billing.billed_ms(dawdling, forecast_ms=1_000, attempt_units=10) == 1_250


def test_silence_stops_the_meter() -> None:
    """B4: a gap counts for two heartbeats at most, and time never runs backwards."""
    assert billing.observed_gap_ms(1_000, 2_500, 2_000) == 1_500
    assert billing.observed_gap_ms(1_000, 61_000, 2_000) == 4_000
    assert billing.observed_gap_ms(5_000, 1_000, 2_000) == 0


def test_an_accepted_chunk_costs_one_qu_at_least() -> None:
    assert billing.charge_qu(0, 0, units=1, hold_left_qu=5) == 1
    assert billing.charge_qu(3_600, HOUR_MS, units=1, hold_left_qu=10_000) == 3_600
    assert billing.charge_qu(3_600, HOUR_MS, units=1, hold_left_qu=7) == 7
    assert billing.charge_qu(3_600, HOUR_MS, units=0, hold_left_qu=7) == 0


@given(st.integers(1, 200), st.lists(st.tuples(st.integers(0, 199), st.integers(1, 50)), max_size=12))
def test_what_is_left_and_what_is_done_make_the_whole(units: int, done: list[tuple[int, int]]) -> None:
    ranges = [Range(start, min(units, start + length)) for start, length in done if start < units]
    left = billing.uncovered(units, ranges)
    covered = {unit for one in ranges for unit in range(one.start, one.stop)}
    assert [unit for one in left for unit in range(one.start, one.stop)] == sorted(set(range(units)) - covered)


@given(st.integers(1, 2**40), st.integers(1, 10**9))
def test_chunks_are_never_too_many(units: int, forecast_ms: int) -> None:
    chunk = billing.chunk_units(units, forecast_ms)
    assert 1 <= chunk <= units
    assert -(-units // chunk) <= CHUNKS_MAX


def test_a_chunk_is_about_a_second() -> None:
    assert billing.chunk_units(1_000, 10_000) == 100
    assert billing.chunk_units(1_000, 10) == 1_000


def test_the_next_range_follows_the_assignment() -> None:
    ranges = [Range(0, 10), Range(20, 30)]
    assert billing.next_range(ranges, 0) == Range(0, 10)
    assert billing.next_range(ranges, 4) == Range(4, 10)
    assert billing.next_range(ranges, 10) == Range(20, 30)
    assert billing.next_range(ranges, 13) == Range(23, 30)
    assert billing.next_range(ranges, 20) == Range(0, 0)
