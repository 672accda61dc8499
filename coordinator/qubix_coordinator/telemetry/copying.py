# SPDX-License-Identifier: Apache-2.0
"""Rows in PostgreSQL's binary COPY format, sent as they are made: the server stores the first while the next are made.

The format is in PostgreSQL's manual, under COPY: a number of cells, then each behind its length in bytes, -1 for NULL.
Rows are laid out side by side, column by column; what a shorter cell leaves free is cut out in the end.
"""

import functools
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qubix_coordinator.db.database import Tx

AT_ONCE: Final = (64, 320)
"""Rows in the first message, so that the server begins soon, and in any other, each of which costs a task."""
_BEGIN: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"
_NULL: Final = -1
_NUMBERS: Final = {"bigint": (">i8", 8), "real": (">f4", 4)}

Record: TypeAlias = tuple[Any, ...]


class _Column(NamedTuple):
    """`form` is the widest cell's, empty when nothing is to be written; `lengths` are -1 for NULL, a single one where
    all are the same."""

    form: str
    lengths: "int | NDArray[np.int32]"
    values: Sequence[Any] = ()


class Rows:
    """Of a table with these columns, by type: bigint, real or text."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.names = tuple(columns)
        self._kinds = tuple(columns.values())

    async def copy(self, tx: Tx, table: str, records: Iterable[Record]) -> None:
        """There must be a record."""
        source = self._messages(iter(records))
        await tx._connection.copy_to_table(table, source=source, columns=self.names, format="binary")

    async def _messages(self, records: Iterator[Record]) -> AsyncIterator[bytes]:
        first, more = AT_ONCE
        some = list(itertools.islice(records, first))
        yield _BEGIN + self.packed(some)
        while some := list(itertools.islice(records, more)):
            yield self.packed(some)
        yield _END

    def packed(self, records: Sequence[Record]) -> bytes:
        """There must be a record."""
        columns = [_column(*both) for both in zip(self._kinds, zip(*records, strict=True), strict=True)]
        laid = np.repeat(_template(tuple(one.form for one in columns)), len(records))
        for number, one in enumerate(columns):
            laid[f"length{number}"] = one.lengths
            if one.form:
                laid[f"cell{number}"] = one.values
        uneven = {number: one.lengths for number, one in enumerate(columns) if not isinstance(one.lengths, int)}
        if not uneven:
            return laid.tobytes()
        fields = laid.dtype.fields
        assert fields is not None, "a template has some"
        plain = laid.view(np.uint8).reshape(len(records), -1)
        kept = np.ones(plain.shape, np.bool_)
        for number, lengths in uneven.items():
            if columns[number].form:
                form, start = fields[f"cell{number}"][:2]
                kept[:, start : start + form.itemsize] = np.arange(form.itemsize) < lengths[:, None]
        return plain[kept].tobytes()


def _column(kind: str, cells: tuple[Any, ...]) -> _Column:
    untold = cells.count(None)
    if untold == len(cells):
        return _Column("", _NULL)
    if kind == "text":
        return _words(cells)
    form, size = _NUMBERS[kind]
    if not untold:
        return _Column(form, size, cells)
    lengths = np.array([_NULL if one is None else size for one in cells], np.int32)
    return _Column(form, lengths, [0 if one is None else one for one in cells])


def _words(cells: tuple[str | None, ...]) -> _Column:
    words = [b"" if one is None else one.encode() for one in cells]
    lengths = [_NULL if one is None else len(word) for one, word in zip(cells, words, strict=True)]
    widest = max(lengths)
    form = f"S{widest}" if widest else ""
    return _Column(form, widest if min(lengths) == widest else np.array(lengths, np.int32), words)


@functools.lru_cache(maxsize=256)
def _template(forms: tuple[str, ...]) -> "NDArray[Any]":
    """One row of cells of these forms, with their number in it."""
    fields = [("cells", ">i2")]
    for number, form in enumerate(forms):
        fields += [(f"length{number}", ">i4"), *([(f"cell{number}", form)] if form else [])]
    row = np.zeros(1, np.dtype(fields))
    row["cells"] = len(forms)
    return row
