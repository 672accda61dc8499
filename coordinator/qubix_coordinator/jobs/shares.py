# SPDX-License-Identifier: Apache-2.0
"""Into how many hands a job's work is divided, and how much each gets. Pure (docs/adr/0011-a-job-in-several-hands.md).

Every hand gets as much as it is forecast to do in the same time as the others, so that all of them end together.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Final
from uuid import UUID

from qubix_coordinator.market import rules as market
from qubix_coordinator.market.rules import Candidate, Choice, Need

SPREAD_AUTO: Final = 4
"""Hands of a job that does not say how many it wants."""
SHARE_MS_MIN: Final = 3_000
"""A share is worth a worker of its own, a check and a receipt when it takes this long."""
SEND_BYTES_PER_MS: Final = 10_000
"""What an ordinary connection carries, 10 MB/s: each hand fetches the inputs for itself."""
DEARER_NUMERATOR: Final = 5
DEARER_DENOMINATOR: Final = 4
"""Without a wish of the consumer no hand costs more than 1.25 times what the cheapest would: as much as a bill may vary
around its forecast anyway."""
SLOWER_MAX: Final = 8
"""A hand this many times slower than the fastest gains little, and everybody waits for it when it stumbles."""


@dataclass(frozen=True, slots=True)
class Share:
    """`choice` holds the forecast of these units."""

    choice: Choice
    units: int


NeedOf = Callable[[int], Need]
"""What so many units ask of a provider. Its hold is what is left for all of the shares together."""


def hands_max(wish: int | None, provider: str | None) -> int:
    """A job that names its provider is with one device of it, unless it wishes for more."""
    if wish is not None:
        return wish
    return 1 if provider is not None else SPREAD_AUTO


def hands_now(places_free: int, queued_behind: int) -> int:
    """How many hands a job may take now: one, and what is left when every job behind it has got one, too."""
    return max(1, places_free - queued_behind)


def worth_ms(input_bytes: int) -> int:
    return SHARE_MS_MIN + input_bytes // SEND_BYTES_PER_MS


def divide(
    candidates: Iterable[Candidate],
    need_of: NeedOf,
    units: int,
    *,
    hands: int,
    worth_ms: int,
    any_price: bool,
    running: Mapping[UUID, int],
    now_ms: int,
) -> list[Share]:
    """Over as many hands as pay, up to `hands`; empty when two already do not."""
    able = market.able(candidates, need_of(units), running, now_ms)
    able = quick(able if any_price else alike(able))
    for count in range(min(hands, len(able), units), 1, -1):
        found = _over(able[:count], need_of, units, worth_ms)
        if found:
            return found
    return []


def alike(choices: Sequence[Choice]) -> list[Choice]:
    """Those that ask about what the cheapest does."""
    least = min((one.forecast.cost_qu for one in choices), default=0)
    return [one for one in choices if about(one.forecast.cost_qu, least)]


def about(cost_qu: int, least_qu: int) -> bool:
    """Whether it costs about the same."""
    return cost_qu * DEARER_DENOMINATOR <= least_qu * DEARER_NUMERATOR


def quick(choices: Sequence[Choice]) -> list[Choice]:
    least = min((one.forecast.run_ms for one in choices), default=0)
    return [one for one in choices if one.forecast.run_ms <= least * SLOWER_MAX]


def _over(hands: Sequence[Choice], need_of: NeedOf, units: int, worth_ms: int) -> list[Share]:
    """Empty when a share is too small, too dear for what is left of the hold, or too late for the deadline."""
    made: list[Share] = []
    spent_qu = 0
    for hand, size in zip(hands, portions(units, [one.forecast.run_ms for one in hands]), strict=True):
        need = need_of(size)
        if need.hold_left_qu is not None:
            need = replace(need, hold_left_qu=need.hold_left_qu - spent_qu)
        guess = market.best_backend(hand.candidate, need)
        if guess is None or market.misfit(hand.candidate, need, guess) is not None or guess[1].run_ms < worth_ms:
            return []
        spent_qu += guess[1].cost_high_qu
        made.append(Share(Choice(hand.candidate, *guess), size))
    return made


def portions(units: int, run_ms: Sequence[int]) -> list[int]:
    """Units for each, in inverse proportion to the time that each would need for all of them; none is empty. There must
    be as many units as hands."""
    speeds = [1.0 / one for one in run_ms]
    edges = [0]
    for after, part in zip(range(len(speeds) - 1, -1, -1), accumulate(speeds), strict=True):
        edges.append(max(edges[-1] + 1, min(round(units * part / sum(speeds)), units - after)))
    return [stop - start for start, stop in pairwise([*edges[:-1], units])]
