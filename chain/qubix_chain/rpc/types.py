# SPDX-License-Identifier: Apache-2.0
"""What the network says, in our own words. Keys are 32 bytes, amounts whole QU, transaction ids 60 lower-case letters.

All of it is somebody's claim until it is verified: see `verified.verify`.
"""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class TickInfo:
    """`GET /live/v1/tick-info`: where the network is. Epochs begin at `initial_tick`."""

    tick: int
    epoch: int
    initial_tick: int


@dataclass(frozen=True, slots=True)
class Balance:
    """`GET /live/v1/balances/{id}`, as of the live tick `valid_for_tick`; all zero for an identity never paid."""

    public_key: bytes
    amount_qu: int
    incoming_qu: int
    outgoing_qu: int
    incoming_count: int
    outgoing_count: int
    """Outgoing transfers that moved QU, since the beginning: a signed payment that ran raises it."""
    incoming_tick: int
    outgoing_tick: int
    valid_for_tick: int


@dataclass(frozen=True, slots=True)
class Broadcast:
    """The network took it into its pool; whether it will ever run is another matter."""

    tx_id: str
    peers: int


@dataclass(frozen=True, slots=True)
class Processed:
    """`GET /query/v1/getLastProcessedTick`. Ticks up to `tick` are final and readable, event logs up to `log_tick`."""

    tick: int
    epoch: int
    log_tick: int | None


@dataclass(frozen=True, slots=True)
class Interval:
    """Ticks first to last were made in this epoch, both included; what lies between intervals was skipped."""

    epoch: int
    first_tick: int
    last_tick: int


@dataclass(frozen=True, slots=True)
class TickData:
    """What a tick listed; one that stayed empty has none."""

    tick: int
    epoch: int
    timestamp_ms: int | None
    tx_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Archived:
    """A transaction as the archive tells it. `money_flew` is decisive for plain transfers and SendMany alone."""

    tx_id: str
    source: bytes
    destination: bytes
    amount_qu: int
    tick: int
    input_type: int
    payload: bytes
    signature: bytes
    money_flew: bool
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class QuTransfer:
    """An event log of type 0: QU moved. The only direct sign of QU that come from a contract."""

    tick: int
    epoch: int
    tx_id: str
    log_id: int
    source: bytes
    destination: bytes
    amount_qu: int


@dataclass(frozen=True, slots=True)
class EpochEnd:
    """A guess. `tick_min`: the epoch ends at this tick or later; None where nobody can tell."""

    epoch: int
    at: datetime | None
    tick_min: int | None
