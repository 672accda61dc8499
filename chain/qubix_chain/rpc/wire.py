# SPDX-License-Identifier: Apache-2.0
"""The API's JSON, and our own types made of it. Pure.

64-bit numbers are strings of digits, 32-bit ones are numbers. core-lite differs: it names a tick's list
`transactionDigests`, leaves `tickData` unwrapped, and adds fields; unknown fields are ignored.
"""

import base64
import binascii
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from qubix_chain import identity
from qubix_chain.crypto import SIGNATURE_SIZE
from qubix_chain.rpc.errors import Malformed, NotYetProcessed, SkippedTick
from qubix_chain.rpc.types import (
    Archived,
    Balance,
    Broadcast,
    Interval,
    Processed,
    QuTransfer,
    TickData,
    TickInfo,
)
from qubix_chain.transaction import PAYLOAD_SIZE_MAX

T = TypeVar("T")
TXS_PER_TICK_MAX: Final = 4096
INT64_MAX: Final = 2**63 - 1

IntText = Annotated[str, Meta(pattern=r"\A(0|[1-9][0-9]{0,18})\Z")]
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
U16 = Annotated[int, Meta(ge=0, le=2**16 - 1)]
TxId = Annotated[str, Meta(pattern=r"\A[a-z]{60}\Z")]
Base64 = Annotated[str, Meta(max_length=4 * (PAYLOAD_SIZE_MAX // 3 + 1))]
Text = Annotated[str, Meta(max_length=4096)]


class _Wire(msgspec.Struct, frozen=True, rename="camel"):
    pass


class _TickInfo(_Wire, frozen=True):
    tick: U32
    epoch: U32
    initial_tick: U32


class _TickInfoAnswer(_Wire, frozen=True):
    tick_info: _TickInfo


class _Balance(_Wire, frozen=True):
    id: str
    balance: IntText
    incoming_amount: IntText
    outgoing_amount: IntText
    valid_for_tick: U32 = 0
    latest_incoming_transfer_tick: U32 = 0
    latest_outgoing_transfer_tick: U32 = 0
    number_of_incoming_transfers: U32 = 0
    number_of_outgoing_transfers: U32 = 0


class _BalanceAnswer(_Wire, frozen=True):
    balance: _Balance


class _BroadcastAnswer(_Wire, frozen=True):
    transaction_id: TxId
    peers_broadcasted: U32 = 0


class _Processed(_Wire, frozen=True):
    tick_number: U32
    epoch: U32 = 0
    last_processed_log_tick: U32 | None = None


class _Interval(_Wire, frozen=True):
    epoch: U32
    first_tick: U32
    last_tick: U32


class _TickData(_Wire, frozen=True):
    tick_number: U32
    epoch: U32 = 0
    timestamp: IntText | None = None
    transaction_hashes: Annotated[tuple[TxId, ...], Meta(max_length=TXS_PER_TICK_MAX)] | None = None
    transaction_digests: Annotated[tuple[TxId, ...], Meta(max_length=TXS_PER_TICK_MAX)] | None = None


class _Transaction(_Wire, frozen=True):
    hash: TxId
    amount: IntText
    source: str
    destination: str
    tick_number: U32
    input_type: U16
    signature: Base64
    input_size: Annotated[int, Meta(ge=0, le=PAYLOAD_SIZE_MAX)] = 0
    input_data: Base64 = ""
    money_flew: bool = False
    timestamp: IntText | None = None


class _Hits(_Wire, frozen=True):
    total: U32


class _Page(_Wire, frozen=True):
    hits: _Hits
    transactions: Annotated[tuple[_Transaction, ...], Meta(max_length=1000)] = ()
    valid_for_tick: U32 | None = None


class _QuTransfer(_Wire, frozen=True):
    source: str
    destination: str
    amount: IntText


class _EventLog(_Wire, frozen=True):
    tick_number: U32
    log_type: U32
    log_id: IntText
    epoch: U32 = 0
    transaction_hash: str = ""
    qu_transfer: _QuTransfer | None = None


class _EventPage(_Wire, frozen=True):
    hits: _Hits
    event_logs: Annotated[tuple[_EventLog, ...], Meta(max_length=1000)] = ()


class _Problem(_Wire, frozen=True):
    code: int
    message: Text = ""


class _Status(_Wire, frozen=True):
    network: Text = ""


class Page(msgspec.Struct, frozen=True):
    """`total` is of the whole query; `valid_for_tick` how far it reaches."""

    total: int
    transactions: tuple[Archived, ...]
    valid_for_tick: int | None


class EventPage(msgspec.Struct, frozen=True):
    total: int
    transfers: tuple[QuTransfer, ...]
    logs: int
    """How many logs of any type this page held."""


def network(body: bytes) -> str:
    """What a devnet calls itself; "" for any other body."""
    try:
        return msgspec.json.decode(body, type=_Status).network
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def tick_info(body: bytes) -> TickInfo:
    found = _decode(body, _TickInfoAnswer).tick_info
    return TickInfo(found.tick, found.epoch, found.initial_tick)


def balance(body: bytes, public_key: bytes) -> Balance:
    """Raises Malformed when it is somebody else's."""
    found = _decode(body, _BalanceAnswer).balance
    if key(found.id) != public_key:
        raise Malformed(f"asked for one identity's balance and got that of {found.id[:60]}")
    return Balance(
        public_key=public_key,
        amount_qu=integer(found.balance),
        incoming_qu=integer(found.incoming_amount),
        outgoing_qu=integer(found.outgoing_amount),
        incoming_count=found.number_of_incoming_transfers,
        outgoing_count=found.number_of_outgoing_transfers,
        incoming_tick=found.latest_incoming_transfer_tick,
        outgoing_tick=found.latest_outgoing_transfer_tick,
        valid_for_tick=found.valid_for_tick,
    )


def broadcast(body: bytes) -> Broadcast:
    found = _decode(body, _BroadcastAnswer)
    return Broadcast(found.transaction_id, found.peers_broadcasted)


def processed(body: bytes) -> Processed:
    found = _decode(body, _Processed)
    return Processed(found.tick_number, found.epoch, found.last_processed_log_tick)


def intervals(body: bytes) -> tuple[Interval, ...]:
    """In ascending order. Raises Malformed where they overlap."""
    found = sorted(
        (Interval(one.epoch, one.first_tick, one.last_tick) for one in _decode(body, tuple[_Interval, ...])),
        key=lambda one: one.first_tick,
    )
    for one, following in itertools.pairwise(found):
        if one.last_tick >= following.first_tick:
            raise Malformed("the archive's tick intervals overlap")
    if any(one.last_tick < one.first_tick for one in found):
        raise Malformed("one of the archive's tick intervals ends before it begins")
    return tuple(found)


def tick_data(body: bytes, tick: int) -> TickData | None:
    """None for an empty tick. Raises Malformed when it is another tick's."""
    plain = _decode(body, dict[str, Any])
    if "tickData" in plain:
        plain = plain["tickData"]
    if plain is None:
        return None
    found = _convert(plain, _TickData)
    if found.tick_number != tick:
        raise Malformed(f"asked for tick {tick} and got tick {found.tick_number}")
    ids = found.transaction_hashes if found.transaction_hashes is not None else found.transaction_digests or ()
    timestamp_ms = None if found.timestamp is None else integer(found.timestamp)
    return TickData(found.tick_number, found.epoch, timestamp_ms, ids)


def transaction(body: bytes) -> Archived:
    return _archived(_decode(body, _Transaction))


def transactions(body: bytes, tick: int) -> tuple[Archived, ...]:
    """A whole tick's, each once. Raises Malformed when one is of another tick."""
    kind = Annotated[tuple[_Transaction, ...], Meta(max_length=TXS_PER_TICK_MAX)]
    found: tuple[_Transaction, ...] = _decode(body, kind)
    if any(one.tick_number != tick for one in found):
        raise Malformed(f"asked for tick {tick} and got transactions of another one")
    return once(map(_archived, found))


def page(body: bytes) -> Page:
    found = _decode(body, _Page)
    return Page(found.hits.total, tuple(map(_archived, found.transactions)), found.valid_for_tick)


def event_page(body: bytes) -> EventPage:
    found = _decode(body, _EventPage)
    transfers = tuple(
        _transfer(one, one.qu_transfer) for one in found.event_logs if one.log_type == 0 and one.qu_transfer
    )
    return EventPage(found.hits.total, transfers, len(found.event_logs))


def _transfer(log: _EventLog, moved: _QuTransfer) -> QuTransfer:
    return QuTransfer(
        tick=log.tick_number,
        epoch=log.epoch,
        tx_id=log.transaction_hash,
        log_id=integer(log.log_id),
        source=key(moved.source),
        destination=key(moved.destination),
        amount_qu=integer(moved.amount),
    )


def _archived(found: _Transaction) -> Archived:
    payload, signature = octets(found.input_data), octets(found.signature)
    if len(payload) != found.input_size:
        raise Malformed(f"{found.hash} says {found.input_size} bytes of input and has {len(payload)}")
    if len(signature) != SIGNATURE_SIZE:
        raise Malformed(f"{found.hash} has a signature of {len(signature)} bytes")
    return Archived(
        tx_id=found.hash,
        source=key(found.source),
        destination=key(found.destination),
        amount_qu=integer(found.amount),
        tick=found.tick_number,
        input_type=found.input_type,
        payload=payload,
        signature=signature,
        money_flew=found.money_flew,
        timestamp_ms=None if found.timestamp is None else integer(found.timestamp),
    )


def key(text: str) -> bytes:
    try:
        return identity.decode(text)
    except ValueError as problem:
        raise Malformed(f"{text[:80]!r} is not an identity: {problem}") from None


def integer(text: str) -> int:
    found = int(text)
    if found > INT64_MAX:
        raise Malformed(f"{text} is more than an amount can be")
    return found


def octets(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("what should be base64 is not") from None


# Refusals -----------------------------------------------------------------------------------------------------------

NOT_FOUND: Final = 5
_BEYOND = re.compile(r"requested tick number (\d{1,10}) is greater than last processed tick (\d{1,10})")
_NUMBERS = re.compile(r"\d{1,10}")


def problem(body: bytes) -> tuple[int, str]:
    """Code and message of a refusal; (0, "") when it is in no known form."""
    try:
        found = msgspec.json.decode(body, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0, ""
    return found.code, found.message


def tick_refusal(message: str, tick: int) -> NotYetProcessed | SkippedTick | None:
    """What the archive says of a tick that it cannot show; None when this is about something else."""
    if beyond := _BEYOND.search(message):
        return NotYetProcessed(tick, int(beyond[2]))
    if "OutOfRange" in message or "next available tick" in message:
        later = [int(number) for number in _NUMBERS.findall(message) if int(number) > tick]
        return SkippedTick(tick, later[-1]) if later else None
    return None


def _decode(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise Malformed(f"the answer is not in the documented form: {problem}"[:300]) from None


def _convert(plain: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as problem:
        raise Malformed(f"the answer is not in the documented form: {problem}"[:300]) from None


def same(one: Sequence[Archived], other: Sequence[Archived]) -> bool:
    """The same transactions, whatever their order and time stamps."""
    return {_essence(tx) for tx in one} == {_essence(tx) for tx in other}


def once(found: Iterable[Archived]) -> tuple[Archived, ...]:
    """Each transaction once. Raises Malformed when the same id has two contents."""
    unique: dict[str, Archived] = {}
    for tx in found:
        if _essence(unique.setdefault(tx.tx_id, tx)) != _essence(tx):
            raise Malformed(f"the archive tells transaction {tx.tx_id} in two ways")
    return tuple(unique.values())


def _essence(tx: Archived) -> tuple[object, ...]:
    return (tx.tx_id, tx.source, tx.destination, tx.amount_qu, tx.tick, tx.input_type, tx.payload, tx.money_flew)
