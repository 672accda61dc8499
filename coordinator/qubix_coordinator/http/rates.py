# SPDX-License-Identifier: Apache-2.0
"""How often somebody may ask, in bounded memory: token buckets, of which the ones asked longest ago are forgotten.

Of this process alone: with several coordinators, each counts for itself.
"""

import asyncio
import ipaddress
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final

from qubix_coordinator.errors import LimitExceeded

KEYS_MAX: Final = 20_000


class Rate:
    """`burst` at once, then `per_s` each second, for each key."""

    def __init__(self, burst: int, per_s: float, keys_max: int = KEYS_MAX) -> None:
        self._burst, self._per_s, self._keys_max = burst, per_s, keys_max
        self._left: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: Hashable, now_s: float) -> float:
        """Counts one and gives 0, or counts nothing and gives how long to wait."""
        left, at_s = self._left.pop(key, (float(self._burst), now_s))
        left = min(self._burst, left + max(0.0, now_s - at_s) * self._per_s)
        granted = left >= 1
        self._left[key] = (left - granted, now_s)
        if len(self._left) > self._keys_max:
            self._left.popitem(last=False)
        return 0.0 if granted else (1 - left) / self._per_s

    def forget(self) -> None:
        """As if nobody had asked yet."""
        self._left.clear()

    def __len__(self) -> int:
        return len(self._left)

    def spent(self, key: Hashable, now_s: float) -> float:
        """How long to wait before the next one would be granted; counts nothing."""
        left, at_s = self._left.get(key, (float(self._burst), now_s))
        left = min(self._burst, left + max(0.0, now_s - at_s) * self._per_s)
        return 0.0 if left >= 1 else (1 - left) / self._per_s


def _by_address() -> Rate:
    return Rate(burst=40, per_s=0.5)


def _by_identity() -> Rate:
    return Rate(burst=10, per_s=0.1)


def _by_new_key() -> Rate:
    return Rate(burst=10, per_s=1 / 60)


class Sockets:
    """Connections open at a time, by address."""

    def __init__(self, each_max: int = 32, all_max: int = 2_000) -> None:
        self._each_max, self._all_max = each_max, all_max
        self._open: Counter[str] = Counter()

    @contextmanager
    def one(self, address: str) -> Iterator[None]:
        """For as long as it is open. Raises LimitExceeded."""
        if self._open[address] >= self._each_max or self._open.total() >= self._all_max:
            raise LimitExceeded(
                "too many connections are open",
                field="address",
                remedy="Close others, or try again later",
                retry_after_s=30,
            )
        self._open[address] += 1
        try:
            yield
        finally:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]


class Turns:
    """So many at a time. Who waits is let in address by address: one that asks for much makes only itself wait."""

    def __init__(self, at_once: int = 1) -> None:
        self._free = at_once
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def one(self, address: str) -> AsyncIterator[None]:
        await self._take(address)
        try:
            yield
        finally:
            self._give()

    async def _take(self, address: str) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(address, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._give()
            raise

    def _give(self) -> None:
        while self._waiting:
            address, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[address] = turns
            if not turn.cancelled():
                turn.set_result(None)
                return
        self._free += 1


@dataclass(frozen=True, slots=True)
class Doors:
    """What strangers may ask for: challenges, sign-ins and pairings, each by address, and by identity at an address; a
    browser tab's socket, and the account that a key which was never here gets by it; what anybody may look at, and the
    sockets on which it is told.

    Never by the identity alone: anybody could then lock anybody else out.
    """

    challenges: Rate = field(default_factory=_by_address)
    challenges_of_one: Rate = field(default_factory=_by_identity)
    sign_ins: Rate = field(default_factory=_by_address)
    sign_ins_of_one: Rate = field(default_factory=_by_identity)
    tabs: Rate = field(default_factory=_by_address)
    new_keys: Rate = field(default_factory=_by_new_key)
    sockets: Sockets = field(default_factory=Sockets)
    looks: Rate = field(default_factory=lambda: Rate(burst=120, per_s=4))
    watches: Rate = field(default_factory=lambda: Rate(burst=40, per_s=1))
    visitors: Sockets = field(default_factory=Sockets)
    visits: Turns = field(default_factory=Turns)
    """Held while a visitor is answered: however many come, most connections to the database are left to others."""
    pairings_made: Rate = field(default_factory=lambda: Rate(burst=20, per_s=0.1))
    pairings_brought: Rate = field(default_factory=lambda: Rate(burst=120, per_s=2))
    pairings_of_one: Rate = field(default_factory=lambda: Rate(burst=60, per_s=1))
    pairings_guessed: Rate = field(default_factory=_by_identity)
    worker_files: Rate = field(default_factory=lambda: Rate(burst=60, per_s=1))

    def challenge(self, address: str, identity: str, now_s: float) -> None:
        """Raises LimitExceeded."""
        _pass(self.challenges, self.challenges_of_one, address, identity, now_s)

    def sign_in(self, address: str, identity: str, now_s: float) -> None:
        """Raises LimitExceeded."""
        _pass(self.sign_ins, self.sign_ins_of_one, address, identity, now_s)

    def tab(self, address: str, now_s: float) -> None:
        """Raises LimitExceeded."""
        _refuse(self.tabs.wait_s(address, now_s), "too many connections from this address", "address")

    def look(self, address: str, now_s: float) -> None:
        """Raises LimitExceeded."""
        wait_s = self.looks.wait_s(address, now_s)
        _refuse(wait_s, "too many requests from this address by who is not signed in", "address")

    def watch(self, address: str, now_s: float) -> None:
        """A query of the market that a visitor begins to follow: the whole table may be sorted and encoded for it.
        Raises LimitExceeded."""
        wait_s = self.watches.wait_s(address, now_s)
        _refuse(wait_s, "too many queries are followed from this address by who is not signed in", "address")

    def new_key(self, address: str, now_s: float) -> None:
        """Raises LimitExceeded."""
        _refuse(self.new_keys.wait_s(address, now_s), "too many new keys from this address", "address")

    def pairing_made(self, account_id: str, now_s: float) -> None:
        """Raises LimitExceeded."""
        _refuse(self.pairings_made.wait_s(account_id, now_s), "too many pairing codes for this account", "name")

    def pairing_brought(self, address: str, peer_id: str, now_s: float) -> None:
        """Raises LimitExceeded, also while wrong codes came from this address lately."""
        _refuse(self.pairings_guessed.spent(address, now_s), "too many wrong pairing codes from this address", "code")
        _pass(self.pairings_brought, self.pairings_of_one, address, peer_id, now_s, "code")

    def worker_file(self, address: str, now_s: float) -> None:
        """Raises LimitExceeded."""
        _refuse(self.worker_files.wait_s(address, now_s), "too many downloads from this address", "address")

    def pairing_guessed(self, address: str, now_s: float) -> None:
        """Counts a code that there is not."""
        self.pairings_guessed.wait_s(address, now_s)


def _pass(
    by_address: Rate, by_identity: Rate, address: str, identity: str, now_s: float, field: str = "identity"
) -> None:
    wait_s = by_address.wait_s(address, now_s) or by_identity.wait_s((address, identity), now_s)
    _refuse(wait_s, "too many tries from this address", field)


def _refuse(wait_s: float, problem: str, field: str) -> None:
    if wait_s:
        raise LimitExceeded(
            problem,
            field=field,
            remedy=f"Wait {max(1, round(wait_s))} s, then try again",
            retry_after_s=wait_s,
        )


def asker_of(address: str | None) -> str:
    """Who counts as one: an IPv4 address, or the /64 that a household has of IPv6."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
