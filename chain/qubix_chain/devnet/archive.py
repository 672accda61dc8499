# SPDX-License-Identifier: Apache-2.0
"""The archive's answers (`/query/v1`), up to its own last tick: JSON values, 64-bit numbers as strings."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from qubix_chain import identity
from qubix_chain.devnet.engine import Interval
from qubix_chain.devnet.errors import BadRequest, Missing
from qubix_chain.devnet.network import FIRST_TICK, Network
from qubix_chain.devnet.rules import BURNING

Json = dict[str, Any]
COMPUTORS: Final = 676
SIZE_DEFAULT: Final = 10
SIZE_MAX: Final = 1000
OFFSET_MAX: Final = 10_000
VALUES_MAX: Final = 5
SHOULD_MAX: Final = 2
_SQLITE_MAX: Final = 2**63 - 1  # its numbers are signed; nothing here is larger


class Column(NamedTuple):
    """`bits` 0: an identity."""

    name: str
    bits: int
    many: bool = False


_TX_COLUMNS: Final = {
    "source": Column("source", 0, many=True),
    "destination": Column("destination", 0, many=True),
    "amount": Column("amount", 64),
    "inputType": Column("input_type", 32),
    "tickNumber": Column("tick", 32),
    "timestamp": Column("timestamp_ms", 64),
}
_EVENT_COLUMNS: Final = {
    **{name: _TX_COLUMNS[name] for name in ("source", "destination", "amount", "tickNumber", "timestamp")},
    "transactionHash": Column("tx_id", -1),
    "logType": Column("kind", 8, many=True),
    "epoch": Column("epoch", 32),
}
_EXCLUDABLE: Final = ("source", "destination")
_SHOULD: Final = ("source", "destination", "amount")


@dataclass(slots=True)
class Where:
    """Conditions that must all hold. The clauses are made of our own column names alone; what was given is bound."""

    columns: Mapping[str, Column]
    clauses: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def add(self, clause: str, *values: Any) -> None:
        self.clauses.append(clause)
        self.values.extend(values)

    def filters(self, given: Any, allowed: Sequence[str], *, word: str = "IN") -> None:
        for key, value in _object("filters", given).items():
            column = self._column(key, allowed, "filter")
            parts = [part.strip() for part in str(value).split(",")]
            most = VALUES_MAX if column.many else 1
            if not 1 <= len(parts) <= most:
                raise BadRequest(f"invalid filter: handling filter [{key}]: too many values, at most {most}")
            places = ", ".join("?" * len(parts))
            self.add(f"{column.name} {word} ({places})", *(_value(key, column, part) for part in parts))

    def ranges(self, given: Any, allowed: Sequence[str]) -> None:
        for key, value in _object("ranges", given).items():
            column = self._column(key, allowed, "range")
            found = _object(key, value)
            low, high = _bound(key, column, found, "gt", "gte"), _bound(key, column, found, "lt", "lte")
            if low is None and high is None:
                raise BadRequest(f"invalid range: invalid [{key}] range: give gt or gte, lt or lte")
            if low is not None and high is not None and low >= high:
                raise BadRequest(f"invalid range: invalid [{key}] range: it must span more than one value")
            if low is not None:
                self.add(f"{column.name} >= ?", low)
            if high is not None:
                self.add(f"{column.name} <= ?", high)

    def should(self, given: Any, allowed: Sequence[str]) -> None:
        """Each of these needs one of its conditions."""
        given = [] if given is None else given
        if not isinstance(given, list):
            raise BadRequest("invalid filter: should must be a list")
        if len(given) > SHOULD_MAX:
            raise BadRequest(f"invalid filter: too many should filters ({len(given)})")
        for one in given:
            any_of = Where(self.columns, seen=self.seen)
            any_of.filters(_object("should", one).get("terms"), allowed)
            any_of.ranges(one.get("ranges"), allowed)
            if len(any_of.clauses) < 2:
                raise BadRequest("invalid filter: should needs at least two filters")
            self.add(f"({' OR '.join(any_of.clauses)})", *any_of.values)

    def _column(self, key: str, allowed: Sequence[str], what: str) -> Column:
        if key not in allowed or key not in self.columns:
            raise BadRequest(f"invalid {what}: unsupported filter [{key}]")
        if key in self.seen:
            raise BadRequest(f"invalid {what}: duplicate [{key}] filter")
        self.seen.add(key)
        return self.columns[key]

    def __str__(self) -> str:
        return " AND ".join(self.clauses) or "1"


class Archive:
    def __init__(self, network: Network) -> None:
        self._network, self._rows = network, network.store.rows

    @property
    def _last(self) -> int:
        return self._network.archived

    def _intervals(self) -> list[Interval]:
        return self._network.store.intervals(self._last)

    def last_processed_tick(self) -> Json:
        known = self._intervals()
        newest = known[-1] if known else Interval(self._network.chain.epoch, self._network.chain.initial_tick, 0)
        return {
            "tickNumber": self._last,
            "epoch": newest.epoch,
            "intervalInitialTick": newest.first_tick,
            "lastProcessedLogTick": self._last,
        }

    def intervals(self) -> list[Json]:
        return [
            {"epoch": one.epoch, "firstTick": one.first_tick, "lastTick": one.last_tick} for one in self._intervals()
        ]

    def transaction(self, tx_id: str) -> Json:
        check_tx_id("hash", tx_id)
        found = self._rows(f"SELECT {_TX} FROM told_tx WHERE id = ? AND tick <= ? LIMIT 1", (tx_id, self._last))  # noqa: S608
        if not found:
            raise Missing("transaction not found")
        return _transaction(found[0])

    def tick_transactions(self, tick: int, filters: Any, ranges: Any) -> list[Json]:
        self._check_tick(tick)
        where = Where(_TX_COLUMNS)
        where.add("tick = ?", tick)
        where.filters(filters, ("source", "destination", "amount", "inputType"))
        where.ranges(ranges, ("amount", "inputType"))
        found = self._rows(f"SELECT {_TX} FROM told_tx WHERE {where} ORDER BY place", where.values)  # noqa: S608
        return [_transaction(row) for row in found]

    def tick_data(self, tick: int) -> Json | None:
        self._check_tick(tick)
        ((epoch, timestamp_ms, empty),) = self._rows(
            "SELECT epoch, timestamp_ms, empty FROM tick WHERE number = ?", (tick,)
        )
        if empty:
            return None
        hashes = self._rows("SELECT id FROM told_tx WHERE tick = ? ORDER BY place", (tick,))
        return {
            "tickNumber": tick,
            "epoch": epoch,
            "computorIndex": tick % COMPUTORS,
            "timestamp": str(timestamp_ms),
            "varStruct": "",
            "timeLock": _base64(bytes(32)),
            "transactionHashes": [row[0] for row in hashes],
            "contractFees": [],
            "signature": _base64(bytes(64)),
        }

    def identity_transactions(self, body: Json) -> Json:
        key = check_identity("identity", body.get("identity"))
        where = Where(_TX_COLUMNS)
        where.add("(source = ? OR destination = ?)", key, key)
        where.filters(body.get("filters"), ("source", "destination", "amount", "inputType", "tickNumber"))
        where.filters(body.get("exclude"), _EXCLUDABLE, word="NOT IN")
        where.ranges(body.get("ranges"), ("amount", "tickNumber", "inputType", "timestamp"))
        rows, hits = self._page("told_tx", _TX, where, body.get("pagination"), "tick DESC, place DESC")
        return {"validForTick": self._last, "hits": hits, "transactions": [_transaction(row) for row in rows]}

    def events(self, body: Json) -> Json:
        where = Where(_EVENT_COLUMNS)
        include = ("source", "destination", "transactionHash", "tickNumber", "logType", "epoch", "amount")
        where.filters(body.get("filters"), include)
        where.filters(body.get("exclude"), _EXCLUDABLE, word="NOT IN")
        where.ranges(body.get("ranges"), ("tickNumber", "epoch", "amount", "timestamp"))
        where.should(body.get("should"), _SHOULD)
        rows, hits = self._page("told_event", _EVENT, where, body.get("pagination"), "tick DESC, log_id DESC")
        return {"hits": hits, "eventLogs": [_event(row) for row in rows], "validForTick": self._last}

    def _page(self, table: str, columns: str, where: Where, given: Any, order: str) -> tuple[list[Any], Json]:
        page = _object("pagination", given)
        offset, size = _page_number(page, "offset", 0, OFFSET_MAX), _page_number(page, "size", SIZE_DEFAULT, SIZE_MAX)
        size = size or SIZE_DEFAULT
        where.add("tick <= ?", self._last)
        ((total,),) = self._rows(f"SELECT count(*) FROM {table} WHERE {where}", where.values)  # noqa: S608
        rows = self._rows(
            f"SELECT {columns} FROM {table} WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?",  # noqa: S608
            (*where.values, size, offset),
        )
        return rows, {"total": total, "from": offset, "size": size}

    def _check_tick(self, tick: int) -> None:
        """Raises BadRequest in the archive's own words for a tick that it has not, or that never was."""
        begun = "invalid tick number: rpc error: code ="
        if tick > self._last:
            raise BadRequest(
                f"{begun} FailedPrecondition desc = requested tick number {tick} is greater than last processed tick"
                f" {self._last}"
            )
        known = (one.first_tick for one in self._intervals() if tick <= one.last_tick)
        first_tick = next(known, FIRST_TICK)
        if tick < first_tick:
            raise BadRequest(
                f"{begun} OutOfRange desc = provided tick number {tick} was skipped by the system, next available tick"
                f" is {first_tick}"
            )


def check_identity(name: str, value: object) -> bytes:
    try:
        return identity.decode(str(value))
    except ValueError as problem:
        raise BadRequest(f"invalid {name}: {problem}") from None


def check_tx_id(name: str, value: object) -> str:
    try:
        identity.decode_tx_id(str(value))
    except ValueError as problem:
        raise BadRequest(f"invalid {name}: {problem}") from None
    return str(value)


def check_number(name: str, value: object, bits: int = 32) -> int:
    """A whole number, or one written in digits as 64-bit ones are."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)
    if type(value) is not int or not 0 <= value < 2**bits:
        raise BadRequest(f"invalid [{name}]: {str(value)[:80]!r} is no whole number of {bits} bits")
    return min(value, _SQLITE_MAX)


def _value(key: str, column: Column, text: str) -> Any:
    if column.bits < 0:
        return check_tx_id(key, text)
    return check_identity(f"[{key}] filter", text) if column.bits == 0 else check_number(key, text, column.bits)


def _bound(key: str, column: Column, given: Json, open_: str, closed: str) -> int | None:
    if open_ in given and closed in given:
        raise BadRequest(f"invalid range: invalid [{key}] range: {open_} and {closed} exclude each other")
    step = 1 if open_ == "gt" else -1
    if open_ in given:
        return min(check_number(key, given[open_], column.bits) + step, _SQLITE_MAX)
    return check_number(key, given[closed], column.bits) if closed in given else None


def _object(name: str, given: Any) -> Json:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise BadRequest(f"invalid {name}: it must be an object")
    return given


def _page_number(page: Json, name: str, default: int, most: int) -> int:
    found = check_number(name, page.get(name, default))
    if found > most:
        raise BadRequest(f"invalid pagination: {name} {found} is above its maximum {most}")
    return found


_TX: Final = "id, amount, source, destination, tick, timestamp_ms, input_type, payload, signature, money_flew_told"
_EVENT: Final = "epoch, tick, timestamp_ms, tx_id, log_id, kind, source, destination, amount"


def _transaction(row: Sequence[Any]) -> Json:
    tx_id, amount, source, destination, tick, timestamp_ms, input_type, payload, signature, money_flew = row
    return {
        "hash": tx_id,
        "amount": str(amount),
        "source": identity.encode(source),
        "destination": identity.encode(destination),
        "tickNumber": tick,
        "timestamp": str(timestamp_ms),
        "inputType": input_type,
        "inputSize": len(payload),
        "inputData": _base64(payload),
        "signature": _base64(signature),
        "moneyFlew": bool(money_flew),
    }


def _event(row: Sequence[Any]) -> Json:
    epoch, tick, timestamp_ms, tx_id, log_id, kind, source, destination, amount = row
    digest = hashlib.sha256(b"".join((source, destination, amount.to_bytes(8, "little")))).digest()[:8]
    told: Json = {
        "epoch": epoch,
        "tickNumber": tick,
        "timestamp": str(timestamp_ms),
        "transactionHash": tx_id,
        "logId": str(log_id),
        "logDigest": digest.hex(),
        "logType": kind,
        "categories": [],
    }
    if kind == BURNING:
        told["burning"] = {"source": identity.encode(source), "amount": str(amount), "contractIndexBurnedFor": 0}
    else:
        told["quTransfer"] = {
            "source": identity.encode(source),
            "destination": identity.encode(destination),
            "amount": str(amount),
        }
    return told


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
