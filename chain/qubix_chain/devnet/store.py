# SPDX-License-Identifier: Apache-2.0
"""The devnet's memory on disk (schema.sql): what was answered survives kill -9, a tick is there whole or not at all."""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from qubix_chain.devnet.engine import Admission, Chain, Done, Interval, Pending, Tick
from qubix_chain.devnet.errors import CannotStart
from qubix_chain.devnet.faults import Fault
from qubix_chain.devnet.rules import Entity, Tx

VERSION: Final = "1"
_SCHEMA: Final = Path(__file__).with_name("schema.sql")
_NUMBERS: Final = ("tick", "epoch", "initial_tick", "burned", "pause_left", "arrivals")
Lies = Mapping[str, frozenset[Fault]]
"""What the archive will say wrongly about the transactions of a tick."""


class Invented(NamedTuple):
    """A transaction that never was, as a lying archive tells it."""

    id: str
    tick: int
    source: bytes
    destination: bytes
    amount: int
    signature: bytes


class Store:
    """One SQLite file, used by one process and one thread."""

    def __init__(self, path: Path) -> None:
        """Raises CannotStart for a folder or file that cannot be used."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.db = sqlite3.connect(path, timeout=1.0, isolation_level=None)
            self.db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self.db.execute("PRAGMA journal_mode = WAL")
            self.db.execute("PRAGMA synchronous = NORMAL")
            with self.transaction():
                if not self.db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                    self._create()
        except (OSError, sqlite3.Error) as problem:
            raise CannotStart(
                f"{path} cannot be used: {problem}."
                " Stop another devnet on that folder, or give QUBIX_DATA_DIR one of yours"
            ) from None
        if self.meta().get("version") != VERSION:
            raise CannotStart(f"{path} is of another version of the devnet. Remove it: it holds play money alone")

    def _create(self) -> None:
        for statement in _SCHEMA.read_text(encoding="utf-8").split(";"):
            if statement.strip():
                self.db.execute(statement)
        self.put_meta(version=VERSION)

    def close(self) -> None:
        self.db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing; nested ones belong to the outermost."""
        if self.db.in_transaction:
            yield
            return
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    # What is small

    def meta(self) -> dict[str, str]:
        return dict(self.db.execute("SELECT key, value FROM meta").fetchall())

    def put_meta(self, **values: str) -> None:
        self.db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))

    def put_json(self, key: str, value: object) -> None:
        self.put_meta(**{key: json.dumps(value)})

    # The chain

    def save_genesis(self, chain: Chain, **meta: str) -> None:
        with self.transaction():
            self._save_entities(chain, chain.entities)
            self._save_state(chain)
            self.put_meta(**meta)

    def load(self, parse: Callable[[bytes], Tx], slots: int) -> Chain | None:
        """None: nothing was saved yet."""
        meta = self.meta()
        if "tick" not in meta:
            return None
        numbers: dict[str, Any] = {name: int(meta[name]) for name in _NUMBERS}
        chain = Chain(**numbers, history=bytes.fromhex(meta["history"]), slots=slots)
        for key, *counts in self.db.execute("SELECT * FROM entity"):
            chain.entities[key] = Entity(*counts)
        for arrival, priority, raw in self.db.execute("SELECT arrival, priority, raw FROM pool ORDER BY arrival"):
            tx = parse(raw)
            chain.pool.setdefault(tx.tick, {})[tx.id] = Pending(tx, int(priority), arrival)
        return chain

    def save_admission(self, chain: Chain, admission: Admission) -> None:
        if admission.pending is None:
            return
        tx, priority, order = admission.pending
        with self.transaction():
            if admission.pushed_out is not None:
                self.db.execute("DELETE FROM pool WHERE id = ?", (admission.pushed_out,))
            self.db.execute("INSERT INTO pool VALUES (?, ?, ?, ?, ?)", (tx.id, order, tx.tick, str(priority), tx.raw))
            self._save_state(chain)

    def save_tick(self, chain: Chain, tick: Tick, lies: Lies, archived: int) -> None:
        with self.transaction():
            self.db.execute(
                "INSERT INTO tick VALUES (?, ?, ?, ?)", (tick.number, tick.epoch, tick.timestamp_ms, int(tick.empty))
            )
            self.db.execute("DELETE FROM pool WHERE tick <= ?", (tick.number,))
            for place, one in enumerate(tick.done):
                self._save_done(tick, place, one, lies.get(one.tx.id, frozenset()))
            self._save_events(tick)
            self._save_entities(chain, tick.changed)
            self._save_state(chain)
            self.put_meta(archived=str(archived))

    def save_pause(self, chain: Chain) -> None:
        """What an epoch's end, or a tick of its pause, leaves."""
        with self.transaction():
            if not chain.pool:
                self.db.execute("DELETE FROM pool")
            self._save_state(chain)

    def _save_done(self, tick: Tick, place: int, done: Done, lies: frozenset[Fault]) -> None:
        tx, flew = done.tx, done.outcome.money_flew
        told = flew != (Fault.ARCHIVE_MISSTATES in lies)
        self.db.execute(
            "INSERT INTO tx VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            (
                tx.id,
                tick.number,
                place,
                tx.source,
                tx.destination,
                tx.amount,
                tx.input_type,
                tx.payload,
                tx.raw[-64:],
                tick.timestamp_ms,
                int(flew),
                int(told),
                int(Fault.ARCHIVE_OMITS in lies),
                1 + (Fault.ARCHIVE_REPEATS in lies),
            ),
        )

    def _save_events(self, tick: Tick) -> None:
        found = self.db.execute("SELECT max(log_id) FROM event WHERE epoch = ?", (tick.epoch,)).fetchone()[0]
        log_id = -1 if found is None else int(found)
        for done in tick.done:
            for event in done.outcome.events:
                log_id += 1
                self.db.execute(
                    "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (tick.epoch, log_id, tick.number, done.tx.id, *event, tick.timestamp_ms),
                )

    def _save_entities(self, chain: Chain, keys: Iterable[bytes]) -> None:
        rows = [
            (
                key,
                one.incoming,
                one.outgoing,
                one.incoming_count,
                one.outgoing_count,
                one.incoming_tick,
                one.outgoing_tick,
            )
            for key in keys
            for one in (chain.entities[key],)
        ]
        self.db.executemany("INSERT OR REPLACE INTO entity VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def _save_state(self, chain: Chain) -> None:
        self.put_meta(**{name: str(getattr(chain, name)) for name in _NUMBERS}, history=chain.history.hex())

    # The archive's progress and its lies

    def ticks_before(self, tick: int, count: int) -> int | None:
        """The tick that was made `count` ticks before the newest one below `tick`."""
        row = self.db.execute(
            "SELECT number FROM tick WHERE number < ? ORDER BY number DESC LIMIT 1 OFFSET ?", (tick, count)
        ).fetchone()
        return None if row is None else int(row[0])

    def intervals(self, up_to: int) -> list[Interval]:
        rows = self.db.execute(
            "SELECT epoch, min(number), max(number) FROM tick WHERE number <= ? GROUP BY epoch ORDER BY epoch", (up_to,)
        )
        return [Interval(*row) for row in rows]

    def lie(self, kind: Fault, tx_id: str) -> bool:
        """From now on the archive lies about that transaction; False when there is none."""
        change = {
            Fault.ARCHIVE_OMITS: "hidden = 1",
            Fault.ARCHIVE_REPEATS: "times = 2",
            Fault.ARCHIVE_MISSTATES: "money_flew_told = 1 - money_flew",
        }[kind]
        done = self.db.execute(f"UPDATE tx SET {change} WHERE id = ? AND invented = 0", (tx_id,))  # noqa: S608
        return done.rowcount == 1

    def invent(self, one: Invented) -> None:
        with self.transaction():
            self.db.execute(
                "INSERT OR IGNORE INTO tx SELECT ?, ?, coalesce(max(place), -1) + 1, ?, ?, ?, 0, x'', ?,"
                " (SELECT timestamp_ms FROM tick WHERE number = ?), 1, 1, 0, 1, 1 FROM tx WHERE tick = ?",
                (one.id, one.tick, one.source, one.destination, one.amount, one.signature, one.tick, one.tick),
            )

    def tell_the_truth(self) -> None:
        """Every lie of the archive ends."""
        with self.transaction():
            self.db.execute("DELETE FROM tx WHERE invented = 1")
            self.db.execute("UPDATE tx SET hidden = 0, times = 1, money_flew_told = money_flew")

    def rows(self, statement: str, values: Iterable[Any]) -> list[tuple[Any, ...]]:
        return self.db.execute(statement, tuple(values)).fetchall()
