# SPDX-License-Identifier: Apache-2.0
"""What deposits and withdrawals need from outside: keys behind `Signer`, the network behind `Chain`.

The chain process (`treasury`) provides both. Errors of `Chain` are those of `qubix_chain.rpc.errors`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

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


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed transaction: it may run in `tick` and never in another. `raw` is what is broadcast."""

    raw: bytes
    tx_id: str
    source: bytes
    destination: bytes
    amount_qu: int
    tick: int


class Signer(Protocol):
    """Signs, and never shows a secret. Signing is deterministic: the same arguments give the same bytes."""

    @property
    def hot_public_key(self) -> bytes:
        """The identity that withdrawals are paid from and deposits are swept to."""
        ...

    def deposit_public_key(self, index: int) -> bytes:
        """The pool's identities, from 0."""
        ...

    def sign_payment(self, *, destination: bytes, amount_qu: int, tick: int) -> Signed:
        """A plain transfer from the hot identity."""
        ...

    def sign_sweep(self, index: int, *, amount_qu: int, tick: int) -> Signed:
        """A plain transfer from deposit identity `index` to the hot identity."""
        ...


class Chain(Protocol):
    """The network as one source tells it. Every call has a time limit and may raise Unreachable or Untrusted."""

    async def tick_info(self) -> TickInfo: ...

    async def balance(self, public_key: bytes) -> Balance: ...

    async def broadcast(self, raw: bytes) -> Broadcast:
        """Raises RefusedByNetwork when its target tick is over. After Unreachable it may have been taken or not."""
        ...

    async def transaction_by_hash(self, tx_id: str) -> Archived | None:
        """From the archive, its id and signature verified; None when the archive does not have it (yet)."""
        ...

    async def last_processed_tick(self) -> Processed: ...

    async def processed_intervals(self) -> Sequence[Interval]:
        """In ascending order."""
        ...

    async def tick_data(self, tick: int) -> TickData | None:
        """None for a tick that stayed empty. Raises NotYetProcessed, SkippedTick."""
        ...

    async def transactions_for_tick(self, tick: int) -> Sequence[Archived]:
        """All that the tick listed, unverified, none for an empty one. Raises NotYetProcessed, SkippedTick."""
        ...

    async def transactions_to(self, public_key: bytes, first_tick: int, last_tick: int) -> Sequence[Archived]:
        """All with this destination in these ticks, both included, unverified, in ascending order of ticks."""
        ...

    async def send_manys(self, first_tick: int, last_tick: int) -> Sequence[Archived]:
        """All calls of QUTIL's SendToManyV1 in these ticks, unverified, in ascending order of ticks."""
        ...

    async def qu_transfers(self, tick: int, destination: bytes) -> Sequence[QuTransfer] | None:
        """Event logs of QU that came to `destination`, by log id; None from a source that keeps no event logs."""
        ...

    async def epoch_end(self) -> EpochEnd:
        """Of the running epoch; a guess, cautious in that `tick_min` is rather too early than too late."""
        ...
