# SPDX-License-Identifier: Apache-2.0
"""The offers that match a query, kept as they are now: a snapshot, then every change once, come what may.

A lost connection comes back by itself within five seconds and goes on behind the last cursor. When that is too long ago
the coordinator sends the whole table again; what differs from the one before is then told as changes like any other.
"""

import random
import time
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from qubix import searching
from qubix.errors import ApiError, CannotReach
from qubix.follow import LIVE_PATH
from qubix.problems import error_of
from qubix.session import Session
from qubix.transport import Disconnected, Reply, Socket
from qubix_protocol.api import ListingView, LiveEvent, MarketDelta, OffersView, Problem, Subscribe, TopicBody
from qubix_protocol.query import SortKey, ordered

SILENT_S: Final = 15.0
"""A coordinator says every five seconds that nothing happened: after this the connection counts as lost."""
FIRST_S: Final = 0.1
LONGEST_S: Final = 3.0
"""Between two tries, so that one falls within five seconds (P10)."""
_ASK_EACH: Final = 4


class Link(StrEnum):
    LIVE = "live"
    RECONNECTING = "reconnecting"


@dataclass(frozen=True, slots=True)
class OffersUpdate:
    """What changed, and how it stands. `age_s`: since the coordinator was last heard; the table may be as old."""

    table: "OffersTable"
    link: Link
    age_s: float
    snapshot: bool = False
    """The first: the table begins with what entered."""
    entered: tuple[ListingView, ...] = ()
    changed: tuple[ListingView, ...] = ()
    gone: tuple[ListingView, ...] = ()
    """As they were last."""

    @property
    def news(self) -> bool:
        return self.snapshot or bool(self.entered or self.changed or self.gone)


@dataclass(frozen=True, slots=True)
class Change:
    entered: tuple[ListingView, ...] = ()
    changed: tuple[ListingView, ...] = ()
    gone: tuple[ListingView, ...] = ()


class OffersTable:
    """The offers by listing. `cursor` is that of the last frame after which it was whole."""

    def __init__(self, keys: tuple[SortKey, ...] = ()) -> None:
        self.offers: dict[str, ListingView] = {}
        self.cursor: str | None = None
        self._keys = keys
        self._coming: dict[str, ListingView] | None = None

    def __len__(self) -> int:
        return len(self.offers)

    def ordered(self) -> list[ListingView]:
        """By the watch's order; equal ones by listing id."""
        return ordered(self.offers.values(), self._keys)

    def take(self, event: LiveEvent) -> Change:
        """What the frame changed. Raises msgspec.ValidationError for what is not understood."""
        found = Change()
        if event.kind == "snapshot":
            self._coming = _by_id(msgspec.convert(event.data, tuple[ListingView, ...]))
        elif event.kind == "more" and self._coming is not None:
            self._coming |= _by_id(msgspec.convert(event.data, tuple[ListingView, ...]))
        elif event.kind == "delta":
            told = msgspec.convert(event.data, MarketDelta)
            found = self._changed(told.listings, told.gone)
        if event.cursor:
            if self._coming is not None:
                gone = [key for key in self.offers if key not in self._coming]
                found, self._coming = self._changed(self._coming.values(), gone), None
            self.cursor = event.cursor
        return found

    def interrupted(self) -> None:
        """Of a snapshot that did not come whole, nothing is kept."""
        self._coming = None

    def _changed(self, listings: Iterable[ListingView], gone: Iterable[str]) -> Change:
        entered, changed, left = list[ListingView](), list[ListingView](), list[ListingView]()
        for one in listings:
            before = self.offers.get(one.listing_id)
            self.offers[one.listing_id] = one
            if before is None:
                entered.append(one)
            elif _ageless(before) != _ageless(one):
                changed.append(one)
        for key in gone:
            was = self.offers.pop(key, None)
            if was is not None:
                left.append(was)
        return Change(tuple(entered), tuple(changed), tuple(left))


class OffersWatch:
    """One watch; `updates` may be gone through once. Raises `BadUsage` for a wrong line, before anybody is asked."""

    def __init__(self, session: Session, query: str, order: str, every_s: float | None) -> None:
        self._session = session
        self._topic = TopicBody(topic="market", query=query, order=order)
        self._name = f"market?{query}" if query else "market"
        self._every_s = every_s
        searching.query(query)
        self.table = OffersTable(searching.order(order))
        self._socket: Socket | None = None
        self._heard_s: float | None = None
        self._spoke_s = 0.0
        self._failures = 0
        self._begun = False

    async def updates(self) -> AsyncGenerator[OffersUpdate, None]:
        told, told_s = Link.LIVE, time.monotonic()
        try:
            while True:
                found = await self._step()
                link = Link.LIVE if self._socket is not None else Link.RECONNECTING
                due = self._every_s is not None and time.monotonic() - told_s >= self._every_s
                if self._heard_s is not None and (found is not None or link is not told or due):
                    told, told_s = link, time.monotonic()
                    yield self._update(found, link)
        finally:
            await self._close()

    def _update(self, found: Change | None, link: Link) -> OffersUpdate:
        first, self._begun = not self._begun and found is not None, self._begun or found is not None
        change, age_s = found or Change(), time.monotonic() - (self._heard_s or 0.0)
        return OffersUpdate(
            table=self.table,
            link=link,
            age_s=age_s,
            snapshot=first,
            entered=change.entered,
            changed=change.changed,
            gone=change.gone,
        )

    async def _step(self) -> Change | None:
        """News, or None after some waiting. Raises `ApiError` when refused, `CannotReach` before the first snapshot."""
        if self._socket is None:
            await self._connect()
            return None
        try:
            return self._read(await self._socket.receive(min(self._every_s or 1.0, 1.0)))
        except Disconnected as problem:
            await self._lost(problem)
        return None

    def _read(self, text: str | bytes | None) -> Change | None:
        """Raises `Disconnected` for what cannot be gone on with."""
        if text is None:
            if time.monotonic() - self._spoke_s > SILENT_S:
                raise Disconnected("the coordinator fell silent", sent=True)
            return None
        self._spoke_s = time.monotonic()
        event = _event(text)
        if event.topic != self._name:
            return None
        whole = self.table.cursor
        try:
            found = self.table.take(event)
        except msgspec.ValidationError:
            raise Disconnected("the coordinator said what this version does not understand", sent=True) from None
        if event.cursor:
            self._failures, self._heard_s = 0, self._spoke_s
        news = bool(found.entered or found.changed or found.gone)
        return found if news or (whole is None and self.table.cursor is not None) else None

    async def _connect(self) -> None:
        try:
            self._socket = await self._session.port.connect(LIVE_PATH)
            topic = msgspec.structs.replace(self._topic, cursor=self.table.cursor)
            await self._socket.send(msgspec.json.encode(Subscribe(subscribe=(topic,))).decode())
            self._spoke_s = time.monotonic()
        except Disconnected as problem:
            await self._lost(problem)

    async def _lost(self, problem: Disconnected) -> None:
        await self._close()
        self.table.interrupted()
        self._failures += 1
        if self._heard_s is None or self._failures % _ASK_EACH == 0:
            await self._ask(problem)
        wait_s = min(LONGEST_S, FIRST_S * 2 ** min(self._failures, 8)) * (0.5 + random.random() / 2)  # noqa: S311
        await self._session.port.sleep(wait_s if self._every_s is None else min(wait_s, self._every_s))

    async def _ask(self, problem: Disconnected) -> None:
        """A refused upgrade does not say why: whoever may not watch may not ask this either, and visitors may both."""
        try:
            await self._session.get("/offers", OffersView, {"limit": 1})
        except CannotReach:
            if self._heard_s is None:
                raise
        except ApiError as refusal:
            if refusal.status < 500:
                raise
        else:
            if self._heard_s is None and self._failures >= _ASK_EACH:
                raise CannotReach(self._session.settings.url, str(problem)) from problem

    async def _close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
            self._socket = None


def _event(text: str | bytes) -> LiveEvent:
    """Raises `ApiError` for a refusal, which is a problem in place of an event; `Disconnected` for anything else."""
    try:
        event = msgspec.json.decode(text, type=LiveEvent)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raw = text.encode() if isinstance(text, str) else text
        try:
            status = msgspec.json.decode(raw, type=Problem).status
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Disconnected("the coordinator said what this version does not understand", sent=True) from None
        if status >= 500:
            raise Disconnected("the coordinator is busy", sent=True) from None
        raise error_of(Reply(status, {}, raw), "the live feed") from None
    if event.kind == "slow":
        raise Disconnected("too much was waiting to be read", sent=True)
    return event


def _by_id(listings: Iterable[ListingView]) -> dict[str, ListingView]:
    return {one.listing_id: one for one in listings}


def _ageless(one: ListingView) -> ListingView:
    return msgspec.structs.replace(one, metrics_age_ms=None)
