# SPDX-License-Identifier: Apache-2.0
"""What a dispute does next, what it ends with, and who pays and gets what (trust.md M5, M7). Pure.

Every open state has a deadline with a default outcome. Awards go to the side that opened it, out of what is at stake.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final
from uuid import UUID

from qubix_protocol.disputes import DisputeState, Finding, Outcome, Side

DRAWS_MAX: Final = 3
"""So many unrelated providers are asked to run it again, one after the other."""
DAY_MS: Final = 86_400_000
BPS: Final = 10_000


class Verb(Enum):
    APPLY = auto()
    IGNORE = auto()
    REFUSE = auto()


class Event(StrEnum):
    ANSWER = "answer"
    CONCEDE = "concede"
    """By the other side: the opener is right."""
    WITHDRAW = "withdraw"
    """By who opened it."""
    FOUND = "found"
    """The second look is over."""
    DECIDE = "decide"
    """As many arbiters as are needed agree."""
    DUE = "due"


class _Then(Enum):
    LOOK = auto()
    """The disputed units are looked at a second time."""
    JUDGE = auto()
    NO_ANSWER = auto()
    """The other side loses by default, unless a verdict answers for it."""
    BY_FINDING = auto()


_S, _E = DisputeState, Event
TABLE: Final[dict[DisputeState, dict[Event, Verb | _Then | Outcome]]] = {
    _S.OPENED: {
        _E.ANSWER: _Then.LOOK,
        _E.CONCEDE: Outcome.CONCEDED,
        _E.WITHDRAW: Outcome.WITHDRAWN,
        _E.FOUND: Verb.IGNORE,
        _E.DECIDE: Verb.REFUSE,
        _E.DUE: _Then.NO_ANSWER,
    },
    _S.RERUNNING: {
        _E.ANSWER: Verb.REFUSE,
        _E.CONCEDE: Outcome.CONCEDED,
        _E.WITHDRAW: Outcome.WITHDRAWN,
        _E.FOUND: _Then.JUDGE,
        _E.DECIDE: Verb.REFUSE,
        _E.DUE: _Then.JUDGE,
    },
    _S.JUDGING: {
        _E.ANSWER: Verb.REFUSE,
        _E.CONCEDE: Outcome.CONCEDED,
        _E.WITHDRAW: Outcome.WITHDRAWN,
        _E.FOUND: Verb.IGNORE,
        _E.DECIDE: Outcome.DECIDED,
        _E.DUE: _Then.BY_FINDING,
    },
    _S.RESOLVED: {
        _E.ANSWER: Verb.REFUSE,
        _E.CONCEDE: Verb.REFUSE,
        _E.WITHDRAW: Verb.REFUSE,
        _E.FOUND: Verb.IGNORE,
        _E.DECIDE: Verb.REFUSE,
        _E.DUE: Verb.IGNORE,
    },
}


@dataclass(frozen=True, slots=True)
class Facts:
    """`checked`: a verifier has judged the result, or the opener disputes the verdict itself: then the verdict is the
    answer, and silence loses nothing."""

    state: DisputeState
    opened_by: Side
    checked: bool
    finding: Finding = Finding.NONE


@dataclass(frozen=True, slots=True)
class Decision:
    verb: Verb
    state: DisputeState
    outcome: Outcome | None = None


_BY_FINDING: Final = {
    Finding.UPHELD: Outcome.UPHELD,
    Finding.REFUTED: Outcome.REFUTED,
    Finding.UNDECIDABLE: Outcome.UNDECIDABLE,
    Finding.NONE: Outcome.UNDECIDABLE,
}


def decide(facts: Facts, event: Event) -> Decision:
    then = TABLE[facts.state][event]
    if event is Event.CONCEDE and facts.opened_by is Side.PROVIDER:
        # The market's own check is disputed, and its fund would pay: the consumer's word gives nothing away.
        return Decision(Verb.REFUSE, facts.state)
    if isinstance(then, Verb):
        return Decision(then, facts.state)
    if isinstance(then, Outcome):
        return Decision(Verb.APPLY, DisputeState.RESOLVED, then)
    if then is _Then.NO_ANSWER and not facts.checked:
        return Decision(Verb.APPLY, DisputeState.RESOLVED, Outcome.DEFAULTED)
    if then is _Then.JUDGE:
        return Decision(Verb.APPLY, DisputeState.JUDGING)
    if then is _Then.BY_FINDING:
        return Decision(Verb.APPLY, DisputeState.RESOLVED, _BY_FINDING[facts.finding])
    return Decision(Verb.APPLY, DisputeState.RERUNNING)


def award_qu(outcome: Outcome, opened_by: Side, stake_qu: int, decided_qu: int = 0) -> int:
    """What of the stake goes to who opened it; `decided_qu` by arbiters."""
    if outcome is Outcome.DECIDED:
        return min(decided_qu, stake_qu)
    consumer = opened_by is Side.CONSUMER
    won = {
        Outcome.CONCEDED: True,
        Outcome.DEFAULTED: True,
        Outcome.WITHDRAWN: False,
        Outcome.UPHELD: not consumer,
        Outcome.REFUTED: consumer,
        # Refunded: nobody pays for what nobody can judge.
        Outcome.UNDECIDABLE: consumer,
    }
    return stake_qu if won[outcome] else 0


def opener_keeps_bonds(outcome: Outcome, award: int, stake_qu: int, *, spent: bool) -> bool:
    """Who loses, loses the bond; what is left of all bonds goes to the other side. Undecidable: less the bond (M7).
    Withdrawn before anything was spent: nothing is lost."""
    if outcome is Outcome.WITHDRAWN:
        return not spent
    return outcome is not Outcome.UNDECIDABLE and 2 * award >= stake_qu


def fund_may_pay(outcome: Outcome) -> bool:
    """Not on the word of the sides alone, who could be one: a second look or an arbiter must say so."""
    return outcome in (Outcome.UPHELD, Outcome.REFUTED, Outcome.DECIDED)


@dataclass(frozen=True, slots=True)
class Caps:
    """What the fund may still pay: today altogether, and to this account."""

    day_qu: int
    account_qu: int

    def of(self, wanted_qu: int, balance_qu: int) -> int:
        return max(0, min(wanted_qu, balance_qu, self.day_qu, self.account_qu))


@dataclass(frozen=True, slots=True)
class Sources:
    """Where an award after settlement comes from."""

    provider: int
    fees: int
    fund: int
    unpaid: int


def sources(award: int, *, paid_qu: int, provider_qu: int, fees_qu: int, fund_qu: int) -> Sources:
    """From the provider what it was paid, as far as its balance goes; the market's fee from the fees; the rest from the
    fund, as far as that may pay. `…_qu` are what each has to give."""
    owes = min(award, paid_qu)
    provider = min(owes, provider_qu)
    fees = min(award - owes, fees_qu)
    fund = min(award - provider - fees, fund_qu)
    return Sources(provider, fees, fund, award - provider - fees - fund)


def arbiters_needed(stake_qu: int, two_above_qu: int) -> int:
    return 2 if stake_qu > two_above_qu else 1


def agreed_qu(votes: Mapping[UUID, int], needed: int) -> int | None:
    """The award that as many arbiters as are needed have decided on; None while they have not."""
    for award in set(votes.values()):
        if sum(1 for one in votes.values() if one == award) >= needed:
            return award
    return None


def bond_qu(rerun_qu: int, least_qu: int) -> int:
    """Twice what the disputed units may cost where they ran: who runs them again may ask more."""
    return max(least_qu, 2 * rerun_qu)


@dataclass(frozen=True, slots=True)
class Somebody:
    """A provider who could run it again: its account, and the wallets bound to that."""

    peer_id: str
    account_id: UUID
    wallets: frozenset[bytes] = frozenset()


def unrelated(
    candidates: Collection[Somebody], parties: Collection[UUID], wallets: Collection[bytes], seen: Collection[str]
) -> list[Somebody]:
    """Neither account nor wallet of a party's, and never in this job (M7). `parties` with the accounts of all who
    worked on it; in a stable order."""
    mine = frozenset(wallets)
    found = [
        one
        for one in candidates
        if one.account_id not in parties and one.peer_id not in seen and not one.wallets & mine
    ]
    return sorted(found, key=lambda one: (str(one.account_id), one.peer_id))


def draw(candidates: Collection[Somebody], below: Callable[[int], int]) -> Somebody | None:
    """An account at random, then one of its nodes: who has many nodes is not drawn more often."""
    accounts = sorted({one.account_id for one in candidates}, key=str)
    if not accounts:
        return None
    chosen = accounts[below(len(accounts))]
    nodes = sorted((one for one in candidates if one.account_id == chosen), key=lambda one: one.peer_id)
    return nodes[below(len(nodes))]


def fund_share_qu(fees_qu: int, moved_qu: int, fund_bps: int) -> int:
    """What of all fees so far is still to be set aside."""
    return max(0, fees_qu * fund_bps // BPS - moved_qu)
