# SPDX-License-Identifier: Apache-2.0
"""trust.md M2, I4: whatever was learned, however many hands, and however often a job is taken up again, it never costs
more than its hold. By the rules that deal out, reserve, bill and learn; nothing stands in for any of them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid5

from hypothesis import given, settings
from hypothesis import strategies as st

from qubix_coordinator.jobs import billing, shares
from qubix_coordinator.market import history, rules
from qubix_coordinator.market.forecast import History, Kept
from qubix_coordinator.market.rules import Candidate, Choice, Need
from tests.unit.test_market_rules import candidate, rate

UNITS = 1_000
FLOPS = 60e9
"""A minute for a device of 1 GF/s."""


@dataclass
class Hand:
    """An open attempt with what was frozen for it."""

    who: Candidate
    units: int
    agreed_ms: int
    rated_ms: float
    done: int | None = None

    @property
    def may_cost_qu(self) -> int:
        """By what it linked once it can link no more."""
        units = self.units if self.done is None else self.done
        return billing.bill_max_qu(
            self.who.rate_qu_per_h, forecast_ms=self.agreed_ms, attempt_units=self.units, units=units
        )


class Job:
    """One job with its hold, and what is learned meanwhile."""

    def __init__(self, offers: Sequence[Candidate], cap_qu: int) -> None:
        self.offers, self.hold_qu, self.waiting = offers, cap_qu, UNITS
        self.open: list[Hand] = []
        self.runs: dict[tuple[UUID, int], list[float]] = {}

    def need(self, units: int) -> Need:
        spare = self.hold_qu - sum(one.may_cost_qu for one in self.open)
        return Need(
            kernel="matmul",
            backends=("cpu",),
            flops=FLOPS * units / UNITS,
            bytes_moved=0,
            memory_bytes=0,
            hold_left_qu=spare,
            history=self.history(),
        )

    def history(self) -> History:
        fits = {key: history.fit_of(ratios) for key, ratios in self.runs.items()}
        return History(Kept(listing, "CPU", "cpu", size, 1e9, fit, fit) for (listing, size), fit in fits.items())

    def deal(self, hands: int) -> None:
        """As `jobs.assign` does: several hands where they pay, else the best alone."""
        taken = {one.who.listing_id for one in self.open}
        free = [one for one in self.offers if one.listing_id not in taken]
        if not self.waiting or not free:
            return
        found = shares.divide(
            free, self.need, self.waiting, hands=hands, worth_ms=1, any_price=True, running={}, now_ms=0
        )
        if not found:
            one = rules.choose(free, self.need(self.waiting), {}, 0)
            found = [shares.Share(one, self.waiting)] if isinstance(one, Choice) else []
        for share in found:
            told = share.choice.forecast
            self.open.append(Hand(share.choice.candidate, share.units, told.agreed_ms, told.rated_ms))
            self.waiting -= share.units

    def hand_in(self, hand: Hand, done: int) -> None:
        """Over on the node's side: the rest waits for somebody, while what was linked waits for its check."""
        hand.done = done
        self.waiting += hand.units - done

    def settle(self, hand: Hand, took_ms: int) -> None:
        assert hand.done is not None
        self.open.remove(hand)
        if hand.done == 0:
            return
        chunk = billing.Chunk(hand.done, took_ms, took_ms)
        billed = billing.billed_ms([chunk], forecast_ms=hand.agreed_ms, attempt_units=hand.units)
        due_qu = billing.charge_qu(hand.who.rate_qu_per_h, billed, units=hand.done, hold_left_qu=2**60)
        assert due_qu <= hand.may_cost_qu, "no settlement is cut by the hold: all of it was reserved"
        self.hold_qu -= due_qu
        assert self.hold_qu >= sum(one.may_cost_qu for one in self.open), "what others may still cost is there"
        rated = hand.rated_ms * hand.done / hand.units
        key = (hand.who.listing_id, history.size_of(rated))
        self.runs[key] = history.remember(self.runs.get(key, []), history.ratio(took_ms, rated))


moves = st.one_of(
    st.tuples(st.just("deal"), st.integers(1, 4), st.just(0)),
    st.tuples(st.just("hand in"), st.integers(0, 3), st.floats(0, 1)),
    st.tuples(st.just("settle"), st.integers(0, 3), st.floats(0, 50)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=4), st.integers(1, 10**6), st.lists(moves, max_size=40))
def test_a_job_never_costs_more_than_its_hold(
    prices: list[int], cap_qu: int, steps: list[tuple[str, int, float]]
) -> None:
    offers = [
        dataclasses.replace(
            candidate(str(number), rate_qu_per_h=price, rates=(rate(1e9 * (number + 1)),)),
            listing_id=uuid5(UUID(int=1), str(number)),
        )
        for number, price in enumerate(prices)
    ]
    job = Job(offers, cap_qu)
    for what, which, how in steps:
        if what == "deal":
            job.deal(which)
        elif what == "hand in" and which < len(job.open) and job.open[which].done is None:
            job.hand_in(job.open[which], round(job.open[which].units * how))
        elif what == "settle" and which < len(job.open) and job.open[which].done is not None:
            job.settle(job.open[which], round(job.open[which].rated_ms * how))
        assert job.hold_qu >= sum(one.may_cost_qu for one in job.open)
    assert job.hold_qu >= 0


def test_a_job_goes_on_until_its_hold_is_too_small_for_what_was_learned() -> None:
    """A device three times as slow as it says: after some runs, what is left buys less, and nothing is overspent."""
    (only,) = offers = [candidate(rate_qu_per_h=3_600_000)]
    job, dealt = Job(offers, 100_000), []
    for _ in range(30):
        job.deal(1)
        if not job.open:
            break
        (hand,) = job.open
        dealt.append(hand.agreed_ms * UNITS // hand.units)
        job.hand_in(hand, hand.units // 10)
        job.settle(hand, round(hand.rated_ms * 0.3))
    assert dealt == sorted(dealt)
    assert dealt[-1] > dealt[0]
    assert only.listing_id in {listing for listing, _ in job.runs}
    assert 0 <= job.hold_qu < 100_000
