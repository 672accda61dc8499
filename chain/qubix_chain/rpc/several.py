# SPDX-License-Identifier: Apache-2.0
"""Several sources as one: the first that answers, or two that must say the same."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from qubix_chain.rpc import wire
from qubix_chain.rpc.errors import Disagreement, NotYetProcessed, SkippedTick, Unreachable, Untrusted
from qubix_chain.rpc.types import (
    Archived,
    Balance,
    Broadcast,
    EpochEnd,
    Interval,
    Processed,
    QuTransfer,
    TickData,
    TickInfo,
)

T = TypeVar("T")


class Source(Protocol):
    """What `Client` offers, and everything made of clients too."""

    async def tick_info(self) -> TickInfo: ...
    async def balance(self, public_key: bytes) -> Balance: ...
    async def broadcast(self, raw: bytes) -> Broadcast: ...
    async def epoch_end(self) -> EpochEnd: ...
    async def last_processed_tick(self) -> Processed: ...
    async def processed_intervals(self) -> Sequence[Interval]: ...
    async def transaction_by_hash(self, tx_id: str) -> Archived | None: ...
    async def tick_data(self, tick: int) -> TickData | None: ...
    async def transactions_for_tick(self, tick: int) -> Sequence[Archived]: ...
    async def transactions_to(self, public_key: bytes, first_tick: int, last_tick: int) -> Sequence[Archived]: ...
    async def send_manys(self, first_tick: int, last_tick: int) -> Sequence[Archived]: ...
    async def qu_transfers(self, tick: int, destination: bytes) -> Sequence[QuTransfer] | None: ...


class FailOver:
    """Asks the source that answered last; the others in turn when it does not answer, or not as documented.

    What sources say of a tick (not yet processed, skipped) is an answer like any other.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        if not sources:
            raise ValueError("at least one source is needed")
        self._sources = tuple(sources)
        self._at = 0

    async def _first(self, ask: Callable[[Source], Awaitable[T]]) -> T:
        last: Unreachable | Untrusted | None = None
        start = self._at
        for step in range(len(self._sources)):
            index = (start + step) % len(self._sources)
            try:
                found = await ask(self._sources[index])
            except (Unreachable, Untrusted) as problem:
                last = problem
            else:
                self._at = index
                return found
        assert last is not None
        raise last

    async def tick_info(self) -> TickInfo:
        return await self._first(lambda one: one.tick_info())

    async def balance(self, public_key: bytes) -> Balance:
        return await self._first(lambda one: one.balance(public_key))

    async def broadcast(self, raw: bytes) -> Broadcast:
        return await self._first(lambda one: one.broadcast(raw))

    async def epoch_end(self) -> EpochEnd:
        return await self._first(lambda one: one.epoch_end())

    async def last_processed_tick(self) -> Processed:
        return await self._first(lambda one: one.last_processed_tick())

    async def processed_intervals(self) -> Sequence[Interval]:
        return await self._first(lambda one: one.processed_intervals())

    async def transaction_by_hash(self, tx_id: str) -> Archived | None:
        return await self._first(lambda one: one.transaction_by_hash(tx_id))

    async def tick_data(self, tick: int) -> TickData | None:
        return await self._first(lambda one: one.tick_data(tick))

    async def transactions_for_tick(self, tick: int) -> Sequence[Archived]:
        return await self._first(lambda one: one.transactions_for_tick(tick))

    async def transactions_to(self, public_key: bytes, first_tick: int, last_tick: int) -> Sequence[Archived]:
        return await self._first(lambda one: one.transactions_to(public_key, first_tick, last_tick))

    async def send_manys(self, first_tick: int, last_tick: int) -> Sequence[Archived]:
        return await self._first(lambda one: one.send_manys(first_tick, last_tick))

    async def qu_transfers(self, tick: int, destination: bytes) -> Sequence[QuTransfer] | None:
        return await self._first(lambda one: one.qu_transfers(tick, destination))


class Agreed:
    """Two independent sources: what the archive says counts only where both say it, else Disagreement (trust.md Q1).

    Live calls and broadcasts go to whichever answers. Where one source lags, both count as being where it is.
    """

    def __init__(self, one: Source, other: Source) -> None:
        self._one, self._other = one, other
        self._either = FailOver([one, other])

    async def _both(self, ask: Callable[[Source], Awaitable[T]]) -> tuple[T, T]:
        found = await asyncio.gather(ask(self._one), ask(self._other), return_exceptions=True)
        problems = [problem for problem in found if isinstance(problem, BaseException)]
        if not problems:
            return found[0], found[1]  # type: ignore[return-value]
        skipped = [problem for problem in problems if isinstance(problem, SkippedTick)]
        others = [problem for problem in problems if not isinstance(problem, SkippedTick)]
        # A source that lags contradicts nobody; one that skips a tick which the other knows, does.
        for problem in sorted(others, key=lambda one: isinstance(one, NotYetProcessed)):
            raise problem
        if len(skipped) < 2 or skipped[0].next_tick != skipped[1].next_tick:
            raise Disagreement(f"the two sources disagree on which ticks were skipped: {skipped[0]}")
        raise skipped[0]

    async def tick_info(self) -> TickInfo:
        return await self._either.tick_info()

    async def balance(self, public_key: bytes) -> Balance:
        return await self._either.balance(public_key)

    async def broadcast(self, raw: bytes) -> Broadcast:
        return await self._either.broadcast(raw)

    async def epoch_end(self) -> EpochEnd:
        return await self._either.epoch_end()

    async def last_processed_tick(self) -> Processed:
        """The one that lags; event logs count as far as both have them, or the only one that keeps any."""
        one, other = await self._both(lambda source: source.last_processed_tick())
        behind = min(one, other, key=lambda found: found.tick)
        logs = [found.log_tick for found in (one, other) if found.log_tick is not None]
        return dataclasses.replace(behind, log_tick=min(logs, default=None))

    async def processed_intervals(self) -> Sequence[Interval]:
        """As far as both know: the running interval ends where the one that lags is."""
        one, other = await self._both(lambda source: source.processed_intervals())
        ends = [found[-1].last_tick for found in (one, other) if found]
        cut = [_until(found, min(ends, default=0)) for found in (one, other)]
        first = max((found[0].first_tick for found in cut if found), default=0)
        known = [_since(found, first) for found in cut]
        if known[0] != known[1]:
            raise Disagreement("the two sources disagree on which ticks were skipped")
        return known[0]

    async def transaction_by_hash(self, tx_id: str) -> Archived | None:
        one, other = await self._both(lambda source: source.transaction_by_hash(tx_id))
        if one is None or other is None:
            if one is not other:
                raise Disagreement(f"one source has transaction {tx_id} and the other does not")
            return None
        if not wire.same([one], [other]):
            raise Disagreement(f"the two sources disagree on transaction {tx_id}")
        return one

    async def tick_data(self, tick: int) -> TickData | None:
        one, other = await self._both(lambda source: source.tick_data(tick))
        if (one is None) != (other is None) or (one and other and set(one.tx_ids) != set(other.tx_ids)):
            raise Disagreement(f"the two sources disagree on what tick {tick} listed")
        return one

    async def transactions_for_tick(self, tick: int) -> Sequence[Archived]:
        return await self._same_transactions(f"tick {tick}", lambda source: source.transactions_for_tick(tick))

    async def transactions_to(self, public_key: bytes, first_tick: int, last_tick: int) -> Sequence[Archived]:
        return await self._same_transactions(
            f"ticks {first_tick} to {last_tick}",
            lambda source: source.transactions_to(public_key, first_tick, last_tick),
        )

    async def send_manys(self, first_tick: int, last_tick: int) -> Sequence[Archived]:
        return await self._same_transactions(
            f"ticks {first_tick} to {last_tick}", lambda source: source.send_manys(first_tick, last_tick)
        )

    async def _same_transactions(
        self, where: str, ask: Callable[[Source], Awaitable[Sequence[Archived]]]
    ) -> Sequence[Archived]:
        one, other = await self._both(ask)
        if not wire.same(one, other):
            raise Disagreement(f"the two sources disagree on the transactions of {where}")
        return one

    async def qu_transfers(self, tick: int, destination: bytes) -> Sequence[QuTransfer] | None:
        """None only where neither keeps event logs."""
        one, other = await self._both(lambda source: source.qu_transfers(tick, destination))
        if one is None or other is None:
            return one if other is None else other
        if [_moved(log) for log in one] != [_moved(log) for log in other]:
            raise Disagreement(f"the two sources disagree on the event logs of tick {tick}")
        return one


def _moved(log: QuTransfer) -> tuple[object, ...]:
    return (log.tick, log.tx_id, log.source, log.destination, log.amount_qu)


def _until(found: Sequence[Interval], tick: int) -> list[Interval]:
    return [dataclasses.replace(one, last_tick=min(one.last_tick, tick)) for one in found if one.first_tick <= tick]


def _since(found: Sequence[Interval], tick: int) -> list[Interval]:
    """A source may remember less of the past than the other."""
    return [dataclasses.replace(one, first_tick=max(one.first_tick, tick)) for one in found if one.last_tick >= tick]
