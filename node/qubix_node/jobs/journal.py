# SPDX-License-Identifier: Apache-2.0
"""What must survive a crash of the node: attempts taken, links made, reports, and what was acknowledged.

One append-only file: 8 bytes of magic, then records of `length (4, big-endian) · CRC-32 (4) · MessagePack`. A record is
on disk (fsync) before anything that depends on it is said. A tail cut short by a crash is not an error: reading ends
at the first record that is not whole. At start the file is written anew with only what is still open.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import trio

from qubix_node.errors import JournalDamaged
from qubix_node.files import sync_folder
from qubix_protocol.messages import Assign, Link, Report
from qubix_protocol.units import FRAME_BYTES_MAX

MAGIC: Final = b"QUBIXJ1\n"
_HEAD: Final = struct.Struct(">II")
_RECORD_BYTES_MAX: Final = 2 * FRAME_BYTES_MAX
_FILE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Beyond it the file is written anew."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    """Base of the records."""


class Taken(Entry, frozen=True, kw_only=True, tag="taken"):
    """Accepted. `started_ms` is wall time."""

    assign: Assign
    started_ms: int


class Made(Entry, frozen=True, kw_only=True, tag="made"):
    """A link; `fraction` and `elapsed_ms` are said with it again after a restart."""

    attempt_id: str
    link: Link
    fraction: float
    elapsed_ms: int


class Reported(Entry, frozen=True, kw_only=True, tag="reported"):
    report: Report


class LinkAcknowledged(Entry, frozen=True, kw_only=True, tag="link_ack"):
    attempt_id: str
    index: int


class Done(Entry, frozen=True, kw_only=True, tag="done"):
    """Nothing of this attempt is wanted any more."""

    attempt_id: str


Record = Taken | Made | Reported | LinkAcknowledged | Done
_decoder: Final = msgspec.msgpack.Decoder(Record)


@dataclass(slots=True)
class Saved:
    """One attempt as the journal has it."""

    taken: Taken
    links: list[Made] = field(default_factory=list)
    acknowledged: set[int] = field(default_factory=set)
    report: Report | None = None

    def records(self) -> Iterator[Record]:
        yield self.taken
        yield from self.links
        for index in sorted(self.acknowledged):
            yield LinkAcknowledged(attempt_id=self.taken.assign.attempt_id, index=index)
        if self.report is not None:
            yield Reported(report=self.report)


def fold(records: Iterable[Record]) -> dict[str, Saved]:
    """The open attempts, oldest first. Records of attempts that are unknown or done change nothing."""
    saved: dict[str, Saved] = {}
    for record in records:
        apply(saved, record)
    return saved


def apply(saved: dict[str, Saved], record: Record) -> None:
    if isinstance(record, Taken):
        saved.setdefault(record.assign.attempt_id, Saved(record))
        return
    attempt_id = record.report.attempt_id if isinstance(record, Reported) else record.attempt_id
    attempt = saved.get(attempt_id)
    if attempt is None:
        return
    if isinstance(record, Made):
        if record.link.index == len(attempt.links):
            attempt.links.append(record)
    elif isinstance(record, Reported):
        attempt.report = record.report
    elif isinstance(record, LinkAcknowledged):
        attempt.acknowledged.add(record.index)
    else:
        del saved[attempt_id]


def encode(record: Record) -> bytes:
    body = msgspec.msgpack.encode(record)
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def read(data: bytes) -> list[Record]:
    """The whole records at the start of `data`. Raises `JournalDamaged` when it never was a journal."""
    if not data.startswith(MAGIC[: len(data)]):
        raise JournalDamaged("the file does not begin like a journal")
    found: list[Record] = []
    at = len(MAGIC)
    while (record := _record_at(data, at)) is not None:
        found.append(record[0])
        at = record[1]
    return found


def _record_at(data: bytes, at: int) -> tuple[Record, int] | None:
    """The record and where the next one begins; None at the end, at a torn record, and at a damaged one."""
    start = at + _HEAD.size
    if start > len(data):
        return None
    length, crc = _HEAD.unpack_from(data, at)
    body = data[start : start + length]
    if length > _RECORD_BYTES_MAX or len(body) != length or zlib.crc32(body) != crc:
        return None
    try:
        return _decoder.decode(body), start + length
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


class Journal:
    """The open file. Opened with `Journal.open`; each `append` returns when its record is on disk."""

    def __init__(self, path: Path, saved: dict[str, Saved]) -> None:
        self._path = path
        self._saved = saved
        self._order = trio.Lock()
        self._renew()

    @classmethod
    def open(cls, path: Path) -> "Journal":
        """Blocks on the disk. Raises `JournalDamaged`."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        data = path.read_bytes() if path.exists() else MAGIC
        return cls(path, fold(read(data)))

    @property
    def saved(self) -> dict[str, Saved]:
        """The open attempts, as of the last append."""
        return self._saved

    async def append(self, *records: Record, durable: bool = True) -> None:
        """Whole and on disk, in the order of calls; cancelling it does not take back what has begun.

        Not `durable`: a crash may lose it, which must only cost something said twice. Raises OSError.
        """
        data = b"".join(map(encode, records))
        with trio.CancelScope(shield=True):
            async with self._order:
                for record in records:
                    apply(self._saved, record)
                await trio.to_thread.run_sync(self._write, data, durable)

    def _renew(self) -> None:
        self._file = _rewrite(self._path, self._saved)
        self._limit = max(_FILE_BYTES_MAX, 2 * os.fstat(self._file).st_size)

    def _write(self, data: bytes, durable: bool) -> None:
        """Raises OSError with the file as it was before, so that what is appended later can be read."""
        size = os.fstat(self._file).st_size
        if size > self._limit:
            os.close(self._file)
            self._renew()  # from memory, where the new records are already
            return
        try:
            _write_all(self._file, data)
            if durable:
                os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, size)
            raise

    def close(self) -> None:
        os.close(self._file)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _rewrite(path: Path, saved: dict[str, Saved]) -> int:
    """A new file with only what is open takes the old one's place; its descriptor, ready to append."""
    fresh = path.with_name(f".{path.name}.new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    try:
        with os.fdopen(os.dup(handle), "wb") as file:
            file.write(MAGIC)
            for attempt in saved.values():
                file.writelines(map(encode, attempt.records()))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_folder(path.parent)
    except BaseException:
        os.close(handle)
        raise
    return handle
