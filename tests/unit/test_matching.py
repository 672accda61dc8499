# SPDX-License-Identifier: Apache-2.0
"""Who gets the work of those that could (market/matching.py): the formula, spread, newcomers' share, and histories in
which nodes fail."""

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.market import matching, rules
from qubix_coordinator.market import reputation as rep
from qubix_coordinator.market.matching import Bid
from qubix_coordinator.market.reputation import Outcome, Record, What


def bid(name: str = "a", **changes: Any) -> Bid:
    return Bid(**({"key": name, "provider": f"peer-{name}", "cost_qu": 1_000, "run_ms": 1_000} | changes))


bids = st.lists(
    st.builds(
        Bid,
        key=st.uuids().map(str),
        provider=st.sampled_from(["p", "q", "r", "s"]),
        cost_qu=st.integers(1, 10**9),
        run_ms=st.integers(1, 10**9),
        reliability=st.floats(0, 1),
        failures=st.integers(0, 50),
        elsewhere=st.booleans(),
        occupied=st.booleans(),
        load=st.integers(0, 5),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda one: one.key,
)
LUCK = st.floats(0, 1, exclude_max=True)
GRID = [number / 1000 for number in range(1000)]


def wins(offered: Sequence[Bid]) -> Counter[str]:
    """Over every luck there is, evenly."""
    return Counter(matching.pick(offered, luck).provider for luck in GRID)


def test_the_formula() -> None:
    assert matching.expected_qu(bid()) == 2_000, "nobody knows: half of the tries are thought to fail"
    assert matching.expected_qu(bid(reliability=1.0)) == 1_000
    assert matching.expected_qu(bid(reliability=1.0, failures=1)) == pytest.approx(1_250)
    assert matching.expected_qu(bid(reliability=1.0, elsewhere=True)) == pytest.approx(1_200)


@given(bids, LUCK)
def test_it_depends_on_nothing_but_the_bids_and_luck(offered: list[Bid], luck: float) -> None:
    found = matching.pick(offered, luck)
    assert found in offered
    shuffled = random.Random(7).sample(offered, len(offered))
    assert matching.pick(shuffled, luck) == found


@given(bids, LUCK)
def test_nobody_pays_more_than_a_twentieth_above_the_best(offered: list[Bid], luck: float) -> None:
    found, best = matching.pick(offered, luck), min(offered, key=matching.order)
    assert matching.price_qu(found) <= matching.price_qu(best) * matching.PRICE_ALIKE
    assert found.occupied == best.occupied
    if luck >= matching.NEWCOMERS_SHARE:
        assert matching.expected_qu(found) <= matching.expected_qu(best) * matching.PRICE_ALIKE * matching.TRIES_ALIKE


@given(bids)
def test_getting_better_never_loses_the_first_place(offered: list[Bid]) -> None:
    best = min(offered, key=matching.order)
    better = dataclasses.replace(best, cost_qu=max(1, best.cost_qu // 2), reliability=1.0, failures=0, load=0)
    others = [one for one in offered if one.key != best.key]
    assert min([*others, better], key=matching.order) == better


def test_equals_share_the_work_whoever_has_most_devices() -> None:
    crowd = [bid(f"a{number}", provider="peer-many") for number in range(8)]
    found = wins([*crowd, bid("b"), bid("c"), bid("d")])
    assert set(found) == {"peer-many", "peer-b", "peer-c", "peer-d"}
    assert all(240 <= count <= 260 for count in found.values()), found


def test_an_equal_with_less_to_do_comes_first() -> None:
    assert set(wins([bid("a", load=1), bid("b"), bid("c", load=2)])) == {"peer-b"}


def test_of_those_that_cost_the_same_much_slower_ones_wait() -> None:
    assert set(wins([bid("a"), bid("b", run_ms=1_200), bid("c", run_ms=1_300)])) == {"peer-a", "peer-b"}


def test_newcomers_get_a_bounded_share() -> None:
    known = [bid("a", reliability=0.9), bid("b", reliability=0.9)]
    new = [bid("n"), bid("m")]
    found = wins([*known, *new])
    assert found["peer-n"] + found["peer-m"] == 100
    assert found["peer-n"] == found["peer-m"]
    crowd = wins([*known, *(bid(f"n{number}") for number in range(50))])
    assert sum(count for name, count in crowd.items() if name.startswith("peer-n")) == 100, "many are no more than one"


@pytest.mark.parametrize(
    "changes",
    [
        {"cost_qu": 1_100},
        {"cost_qu": 1_000, "run_ms": 2_100},
        {"elsewhere": True},
        {"cost_qu": 100, "run_ms": 2_100, "elsewhere": True, "occupied": True},
    ],
)
def test_a_newcomers_turn_costs_nobody_more(changes: dict[str, Any]) -> None:
    assert wins([bid("a", reliability=0.9), bid("n", **changes)])["peer-n"] == 0


def test_newcomers_begin_with_small_stakes() -> None:
    dear = matching.NEWCOMERS_QU_MAX + 1
    assert wins([bid("a", reliability=0.9, cost_qu=dear), bid("n", cost_qu=dear)])["peer-n"] == 0
    assert wins([bid("n", cost_qu=dear)])["peer-n"] == 1000, "but are not left out where nobody else is"


def test_a_newcomer_that_asks_less_than_half_needs_no_luck() -> None:
    assert wins([bid("a", reliability=0.9), bid("n", cost_qu=500)])["peer-n"] == 1_000


# Histories ----------------------------------------------------------------------------------------------------------

UNIT = 100


@dataclasses.dataclass
class Player:
    """A node that fails with a chance of its own."""

    name: str
    fails: float
    failures: int = 0
    until_ms: int = 0
    jobs: int = 0
    record: Record = dataclasses.field(default_factory=Record)

    def bid(self) -> Bid:
        found = rep.reliability(self.record, 1.0)
        return bid(self.name, cost_qu=UNIT, reliability=found, failures=self.failures)

    def run(self, now_ms: int, chance: random.Random) -> bool:
        self.jobs += 1
        if chance.random() < self.fails:
            self.failures += 1
            self.until_ms = now_ms + rules.backoff_ms(self.failures)
            self.record = rep.fold(self.record, Outcome(What.FAILED, UNIT, now_ms), UNIT)
            return False
        self.failures = self.until_ms = 0
        for what in (What.FINISHED, What.RIGHT):
            self.record = rep.fold(self.record, Outcome(what, UNIT, now_ms, True, 1, 1), UNIT)
        return True


def play(players: Sequence[Player], jobs: int, seed: int, step_ms: int = 5_000) -> float:
    """The share of tries that failed."""
    chance, failed, tried = random.Random(seed), 0, 0
    now_ms = max(1_700_000_000_000, *(one.until_ms for one in players), *(one.record.at_ms for one in players))
    for _ in range(jobs):
        done = False
        while not done:
            now_ms += step_ms
            free = [one for one in players if one.until_ms <= now_ms]
            if free:
                drawn = matching.pick([one.bid() for one in free], chance.random())
                done = next(one for one in free if one.name == drawn.key).run(now_ms, chance)
                tried, failed = tried + 1, failed + (not done)
    return failed / tried


@pytest.mark.parametrize("seed", range(5))
def test_a_failing_node_is_avoided_and_the_others_share(seed: int) -> None:
    players = [Player("bad", 0.7), Player("good", 0.02), Player("fine", 0.02), Player("new", 0.02)]
    play(players, 400, seed)
    for one in players:
        one.jobs = 0
    failed = play(players, 400, seed + 100)
    bad, *others = players
    assert bad.jobs <= 0.1 * 400, [one.jobs for one in players]
    assert min(one.jobs for one in others) >= 0.2 * 400, [one.jobs for one in players]
    assert failed <= 0.08


@pytest.mark.parametrize("seed", range(5))
def test_one_blip_ends_nothing(seed: int) -> None:
    """From 30 good ones: left alone for two seconds, and within a hundred jobs as trusted as before."""
    players = [Player("a", 0.0), Player("b", 0.0)]
    play(players, 60, seed)
    hurt, now_ms = players[0], 1_700_000_600_000
    while hurt.jobs < 30:
        hurt.run(now_ms, random.Random(0))
    before = rep.reliability(hurt.record, 1.0)
    hurt.fails = 1.0
    hurt.run(now_ms, random.Random(0))
    assert hurt.until_ms - now_ms == rules.BACKOFF_FIRST_MS
    hurt.fails = 0.0
    assert rep.reliability(hurt.record, 1.0) > 0.9 * before
    assert wins([hurt.bid(), players[1].bid()])[hurt.bid().provider] >= 99, "it is asked again before it was forgiven"
    had = hurt.jobs
    for _ in range(100):
        now_ms += 10_000
        hurt.run(now_ms, random.Random(0))
    assert hurt.jobs > had
    assert rep.reliability(hurt.record, 1.0) > before


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 10**6))
def test_backoff_follows_the_failures_in_a_row_alone(history: list[bool], gap_ms: int) -> None:
    """Whatever came before the last success is forgiven, and no pause is longer than five minutes."""
    player, now_ms = Player("a", 0.0), 0
    for good in history:
        now_ms += gap_ms
        player.fails = 0.0 if good else 1.1
        player.run(now_ms, random.Random(1))
    row = next((n for n, good in enumerate(reversed(history)) if good), len(history))
    assert player.failures == row
    paused = max(0, player.until_ms - now_ms)
    assert paused == (rules.backoff_ms(row) if row else 0)
    assert paused <= rules.BACKOFF_MAX_MS
