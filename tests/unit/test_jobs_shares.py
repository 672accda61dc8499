# SPDX-License-Identifier: Apache-2.0
"""Into how many hands a job goes, how much each gets, and who comes first."""

import dataclasses
from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.jobs import billing, shares
from qubix_coordinator.jobs.shares import Share, divide, hands_max, hands_now, portions
from qubix_coordinator.market import forecast
from qubix_coordinator.market.rules import Candidate, Need
from qubix_protocol.messages import Range
from tests.unit.test_market_rules import candidate, rate

UNITS = 1_000
FLOPS = 100e9
"""100 s for a device of 1 GF/s."""
QU_MAX = 10**9


def need_of(hold_left_qu: int = QU_MAX, time_left_ms: int = 10**9, **changes: object) -> shares.NeedOf:
    def need(units: int) -> Need:
        plain = Need(
            kernel="matmul",
            backends=("cpu",),
            flops=FLOPS * units / UNITS,
            bytes_moved=0,
            memory_bytes=1,
            hold_left_qu=hold_left_qu,
            time_left_ms=time_left_ms,
        )
        return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]

    return need


def divided(
    offers: Sequence[Candidate],
    need: shares.NeedOf | None = None,
    *,
    hands: int = 4,
    worth_ms: int = 3_000,
    any_price: bool = False,
    running: dict[UUID, int] | None = None,
) -> dict[str, int]:
    found = divide(
        offers,
        need or need_of(),
        UNITS,
        hands=hands,
        worth_ms=worth_ms,
        any_price=any_price,
        running=running or {},
        now_ms=0,
    )
    return {share.choice.candidate.peer_id: share.units for share in found}


def nodes(*speeds: float, rate_qu_per_h: int = 36_000) -> list[Candidate]:
    """Devices `a`, `b`, … of so many GF/s; by default all at the same price for the same work."""
    return [
        candidate(name, rates=(rate(speed * 1e9),), rate_qu_per_h=round(rate_qu_per_h * speed))
        for name, speed in zip("abcdefghij", speeds, strict=False)
    ]


@pytest.mark.parametrize(
    ("speeds", "hands", "expected"),
    [
        ((1.0,), 4, {}),
        ((1.0, 1.0), 4, {"peer-a": 500, "peer-b": 500}),
        ((1.0, 1.0), 1, {}),
        ((3.0, 1.0), 4, {"peer-a": 750, "peer-b": 250}),
        ((1.0, 1.0, 1.0, 1.0, 1.0), 4, {"peer-a": 250, "peer-b": 250, "peer-c": 250, "peer-d": 250}),
        ((1.0, 1.0, 1.0), 2, {"peer-a": 500, "peer-b": 500}),
        # A ninth of the speed gains next to nothing.
        ((9.0, 1.0), 4, {}),
    ],
)
def test_each_hand_gets_what_it_does_in_the_same_time(
    speeds: tuple[float, ...], hands: int, expected: dict[str, int]
) -> None:
    found = divided(nodes(*speeds), hands=hands)
    assert sorted(found.values()) == sorted(expected.values())
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("worth_ms", "count"), [(3_000, 4), (24_900, 4), (25_100, 3), (40_000, 2), (50_100, 0), (200_000, 0)]
)
def test_a_job_too_small_to_be_worth_spreading_stays_whole(worth_ms: int, count: int) -> None:
    assert len(divided(nodes(1, 1, 1, 1), worth_ms=worth_ms)) == count


def test_a_share_must_be_worth_more_where_inputs_are_large() -> None:
    assert shares.worth_ms(0) == shares.SHARE_MS_MIN
    assert shares.worth_ms(200_000_000) == shares.SHARE_MS_MIN + 20_000


def test_without_a_wish_no_hand_is_much_dearer_than_the_cheapest() -> None:
    cheap, alike = candidate("a", rate_qu_per_h=36_000), candidate("b", rate_qu_per_h=45_000)
    dear = candidate("c", rate_qu_per_h=45_100)
    assert set(divided([cheap, alike, dear])) == {"peer-a", "peer-b"}
    assert set(divided([cheap, dear])) == set()
    assert set(divided([cheap, dear], any_price=True)) == {"peer-a", "peer-c"}


def test_all_shares_together_fit_what_is_left_of_the_hold() -> None:
    """1,000 QU for the whole job, and up to 1,250: as two shares just so."""
    offers = nodes(1, 1)
    assert len(divided(offers, need_of(hold_left_qu=1_250))) == 2
    assert divided(offers, need_of(hold_left_qu=1_249)) == {}
    dear = [*nodes(1), candidate("z", rate_qu_per_h=72_000)]
    assert len(divided(dear, need_of(hold_left_qu=1_875), any_price=True)) == 2
    assert divided(dear, need_of(hold_left_qu=1_874), any_price=True) == {}


def test_several_hands_make_a_deadline_that_none_makes_alone() -> None:
    assert len(divided(nodes(1, 1, 1), need_of(time_left_ms=40_000))) == 3
    assert divided(nodes(1, 1), need_of(time_left_ms=40_000)) == {}


def test_only_who_is_free_and_fits_gets_a_share() -> None:
    offers = nodes(1, 1, 1)
    busy = {offers[0].listing_id: 1}
    assert set(divided(offers, running=busy)) == {"peer-b", "peer-c"}
    assert set(divided(offers, need_of(excluded=frozenset({"peer-b"})))) == {"peer-a", "peer-c"}
    assert divided(offers, need_of(rate_qu_per_h_max=1)) == {}
    assert set(divided(offers, need_of(provider="peer-b"))) == set()


@given(
    st.lists(st.floats(0.2, 20.0), min_size=1, max_size=10),
    st.integers(1, 10),
    st.integers(1, 50_000),
    st.integers(1, 5_000),
)
def test_shares_are_whole_and_pay(speeds: list[float], hands: int, worth_ms: int, hold_qu: int) -> None:
    """Whatever the market: every unit once, none empty, none too small, and all of them together within the hold."""
    found: list[Share] = divide(
        nodes(*speeds),
        need_of(hold_left_qu=hold_qu),
        UNITS,
        hands=hands,
        worth_ms=worth_ms,
        any_price=True,
        running={},
        now_ms=0,
    )
    if not found:
        return
    assert 2 <= len(found) <= hands
    assert sum(share.units for share in found) == UNITS
    assert min(share.units for share in found) >= 1
    assert len({share.choice.candidate.listing_id for share in found}) == len(found)
    assert min(share.choice.forecast.run_ms for share in found) >= worth_ms
    assert sum(share.choice.forecast.cost_high_qu for share in found) <= hold_qu


@given(st.lists(st.integers(1, forecast.RUN_MS_MAX), min_size=1, max_size=64), st.integers(0, 2**40))
def test_portions_are_never_empty_and_make_the_whole(run_ms: list[int], more: int) -> None:
    units = len(run_ms) + more
    sizes = portions(units, run_ms)
    assert sum(sizes) == units
    assert min(sizes) >= 1


@pytest.mark.parametrize(
    ("wish", "provider", "hands"),
    [(None, None, shares.SPREAD_AUTO), (None, "peer", 1), (1, None, 1), (9, None, 9), (2, "peer", 2)],
)
def test_how_many_hands_a_job_may_have(wish: int | None, provider: str | None, hands: int) -> None:
    assert hands_max(wish, provider) == hands


@pytest.mark.parametrize(
    ("places_free", "queued_behind", "hands"), [(1, 0, 1), (5, 0, 5), (5, 3, 2), (5, 4, 1), (5, 9, 1), (2, 1, 1)]
)
def test_every_job_gets_one_hand_before_any_gets_a_second(places_free: int, queued_behind: int, hands: int) -> None:
    assert hands_now(places_free, queued_behind) == hands


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_ranges_are_dealt_out_in_order(lengths: list[int], wanted: list[int]) -> None:
    ranges, at = [], 0
    for length in lengths:
        ranges.append(Range(at, at + length))
        at += length + 1
    sizes = [*wanted, 10**9]
    pieces = billing.cut(ranges, sizes)
    units = [unit for piece in pieces for one in piece for unit in range(one.start, one.stop)]
    assert units == [unit for one in ranges for unit in range(one.start, one.stop)]
    for piece, size in zip(pieces, sizes, strict=True):
        assert billing.total(piece) <= size


@given(st.integers(0, 10**9), st.integers(1, 10**6), st.integers(1, 1000), st.data())
def test_what_is_reserved_is_the_most_that_can_be_billed(
    rate_qu: int, forecast_ms: int, units: int, data: st.DataObject
) -> None:
    """trust.md M2: reservations of open attempts cover whatever their links will bill, and never grow."""
    done = data.draw(st.integers(1, units))
    claimed = data.draw(st.integers(0, 10**7))
    billed = billing.billed_ms([billing.Chunk(done, claimed, claimed)], forecast_ms=forecast_ms, attempt_units=units)
    charge = billing.charge_qu(rate_qu, billed, units=done, hold_left_qu=10**15)
    reserved = billing.bill_max_qu(rate_qu, forecast_ms=forecast_ms, attempt_units=units, units=done)
    assert charge <= reserved
    assert reserved <= billing.bill_max_qu(rate_qu, forecast_ms=forecast_ms, attempt_units=units, units=units)
    told = forecast.forecast(rate(1e9), forecast.Work(forecast_ms * 1e6, 0), rate_qu)
    assert told is not None
    whole = billing.bill_max_qu(rate_qu, forecast_ms=told.agreed_ms, attempt_units=units, units=units)
    assert whole <= told.cost_high_qu
