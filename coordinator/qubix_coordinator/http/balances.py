# SPDX-License-Identifier: Apache-2.0
"""What the Qubic network says is on a wallet, for people to look at (R2.3); no decision rests on it.

The network may be slow or away, and every page asks: an answer serves for some seconds, and so does a silence. What is
not known is told with its reason.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from qubix_chain.rpc import Client, FailOver
from qubix_chain.rpc.errors import ChainError, Untrusted
from qubix_chain.rpc.http import Limits
from qubix_chain.rpc.types import Balance

ASK_S: Final = 3.0
FRESH_S: Final = 5.0
KEPT_MAX: Final = 10_000
AT_ONCE_MAX: Final = 8
_NOT_CONNECTED: Final = "this market is not connected to the Qubic network; its operator sets QUBIX_QUBIC_URL"
_NO_ANSWER: Final = "the Qubic network does not answer at the moment; try again in a minute. Nothing is lost meanwhile"
_NOT_BELIEVED: Final = "the Qubic network's answer cannot be believed at the moment; try again in a minute"


class BalanceSource(Protocol):
    async def balance(self, public_key: bytes) -> Balance: ...


@dataclass(frozen=True, slots=True)
class OnChain:
    """`problem` says why `balance_qu` is not known, where it is None."""

    balance_qu: int | None
    tick: int | None
    problem: str


class Balances:
    def __init__(self, network: BalanceSource | None, now_s: Callable[[], float], ask_s: float = ASK_S) -> None:
        self._network, self._now_s, self._ask_s = network, now_s, ask_s
        self._known: OrderedDict[bytes, tuple[float, OnChain]] = OrderedDict()
        self._silent_until_s = float("-inf")
        self._turns = asyncio.Semaphore(AT_ONCE_MAX)

    async def of(self, public_keys: Sequence[bytes]) -> list[OnChain]:
        """In the order asked for; takes `ask_s` at most, however many there are. Never raises."""
        asked = [asyncio.ensure_future(self._one(key)) for key in public_keys]
        try:
            if asked:
                await asyncio.wait(asked, timeout=self._ask_s)
            return [one.result() if one.done() else self._silence() for one in asked]
        finally:
            for one in asked:
                one.cancel()

    async def _one(self, public_key: bytes) -> OnChain:
        if self._network is None:
            return OnChain(None, None, _NOT_CONNECTED)
        async with self._turns:
            at_s, known = self._known.get(public_key, (float("-inf"), None))
            if known is not None and self._now_s() < at_s + FRESH_S:
                return known
            if self._now_s() < self._silent_until_s:
                return OnChain(None, None, _NO_ANSWER)
            try:
                said = await self._network.balance(public_key)
            except ChainError as problem:
                return OnChain(None, None, _NOT_BELIEVED) if isinstance(problem, Untrusted) else self._silence()
            return self._keep(public_key, OnChain(said.amount_qu, said.valid_for_tick, ""))

    def _silence(self) -> OnChain:
        self._silent_until_s = self._now_s() + FRESH_S
        return OnChain(None, None, _NO_ANSWER)

    def _keep(self, public_key: bytes, found: OnChain) -> OnChain:
        self._known[public_key] = (self._now_s(), found)
        self._known.move_to_end(public_key)
        while len(self._known) > KEPT_MAX:
            self._known.popitem(last=False)
        return found


@contextlib.asynccontextmanager
async def qubic_network(urls: Sequence[str], ask_s: float = ASK_S) -> AsyncIterator[BalanceSource | None]:
    """The first of these addresses that answers, all of them together within `ask_s`; None without any."""
    each_s = ask_s / max(1, len(urls))
    clients = [Client(url, limits=Limits(try_s=each_s, deadline_s=each_s, tries_max=1)) for url in urls]
    try:
        yield FailOver(clients) if clients else None
    finally:
        for client in clients:
            await client.close()
