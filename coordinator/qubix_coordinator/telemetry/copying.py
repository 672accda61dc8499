# SPDX-License-Identifier: Apache-2.0
"""Rows in PostgreSQL's binary COPY format, sent as they are made: the server stores the first while the next are made.

The format is in PostgreSQL's manual, under COPY: a number of cells, then each behind its length in bytes, -1 for NULL.
Rows are laid out side by side, column by column; what a shorter cell leaves free is cut out in the end.
"""

import asyncio
import functools
import itertools
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qubix_coordinator.db.database import Tx

AT_ONCE: Final = 500
"""Rows in a message: each costs a task, and one of more than 128 KiB costs memory that the system must clear first."""
_BEGIN: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"
_NULL: Final = -1
_NUMBERS: Final = {"bigint": ("q", ">i8", 8), "real": ("f", ">f4", 4)}

Cells: TypeAlias = "Sequence[Any] | NDArray[Any]"
"""Of one column. Of a text: the words that it is made of, one behind the other with commas between. None is NULL; in an
array, nothing is."""


class _Column(NamedTuple):
    """`form` is the widest cell's, empty when nothing is to be written; `lengths` are -1 for NULL, a single one where
    all are the same."""

    form: str
    lengths: "int | NDArray[np.int32]"
    values: Any = ()


class Rows:
    """Of a table with these columns, by type: bigint, real or text."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.names = tuple(columns)
        self._kinds = tuple(columns.values())

    async def copy(
        self,
        tx: Tx,
        table: str,
        count: int,
        cells: Callable[[slice], Sequence[Cells]],
        meanwhile: Coroutine[Any, Any, None] | None = None,
    ) -> None:
        """`cells` gives some rows' columns. There must be a row. `meanwhile` is asked of the server in this transaction
        before, while the first rows are made."""
        messages = self._messages(count, cells)
        first = next(messages) if meanwhile is None else await _while_asked(meanwhile, lambda: next(messages))
        source = _each(itertools.chain((first,), messages))
        await tx._connection.copy_to_table(table, source=source, columns=self.names, format="binary")

    def _messages(self, count: int, cells: Callable[[slice], Sequence[Cells]]) -> Iterator[bytes]:
        for start in range(0, count, AT_ONCE):
            begin = b"" if start else _BEGIN
            end = _END if start + AT_ONCE >= count else b""
            yield begin + self.packed(cells(slice(start, start + AT_ONCE))) + end

    def packed(self, cells: Sequence[Cells]) -> bytes:
        """There must be a row."""
        columns = [_column(*both) for both in zip(self._kinds, cells, strict=True)]
        uneven = {number: one.lengths for number, one in enumerate(columns) if not isinstance(one.lengths, int)}
        even = tuple((one.form, one.lengths if isinstance(one.lengths, int) else 0) for one in columns)
        laid = np.repeat(_template(even), len(cells[0]))
        for number, one in enumerate(columns):
            if one.form:
                laid[f"cell{number}"] = one.values
        if not uneven:
            return laid.tobytes()
        fields = laid.dtype.fields
        assert fields is not None, "a template has some"
        plain = laid.view(np.uint8).reshape(len(laid), -1)
        kept = np.ones(plain.shape, np.bool_)
        for number, lengths in uneven.items():
            laid[f"length{number}"] = lengths
            if columns[number].form:
                form, start = fields[f"cell{number}"][:2]
                kept[:, start : start + form.itemsize] = np.arange(form.itemsize) < lengths[:, None]
        return plain[kept].tobytes()


async def _while_asked(question: Coroutine[Any, Any, None], work: Callable[[], bytes]) -> bytes:
    asked = asyncio.ensure_future(question)
    try:
        await asyncio.sleep(0)  # until it is on its way
        return work()
    finally:
        await asked


async def _each(messages: Iterator[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


def _column(kind: str, cells: Cells) -> _Column:
    if not isinstance(cells, np.ndarray) and cells.count(None) == len(cells):
        return _Column("", _NULL)
    if kind == "text":
        return _words(cells)
    code, form, size = _NUMBERS[kind]
    if isinstance(cells, np.ndarray):
        return _Column(form, size, cells)
    try:
        return _Column(form, size, array(code, cells))
    except TypeError:  # one of them is None
        lengths = np.array([_NULL if one is None else size for one in cells], np.int32)
        return _Column(form, lengths, array(code, [0 if one is None else one for one in cells]))


def _words(cells: Cells) -> _Column:
    """Few are different from each other."""
    places = {one: place for place, one in enumerate(dict.fromkeys(cells))}
    each = list(map(places.__getitem__, cells))
    words = [b"" if one is None else ",".join(one).encode() for one in places]
    lengths = [_NULL if one is None else len(word) for one, word in zip(places, words, strict=True)]
    widest = max(lengths)
    form = f"S{widest}" if widest else ""
    values = np.array(words, form)[each] if form else ()
    return _Column(form, widest if min(lengths) == widest else np.array(lengths, np.int32)[each], values)


@functools.lru_cache(maxsize=256)
def _template(even: tuple[tuple[str, int], ...]) -> "NDArray[Any]":
    """One row of cells of these forms and lengths, with their number in it."""
    fields = [("cells", ">i2")]
    for number, (form, _) in enumerate(even):
        fields += [(f"length{number}", ">i4"), *([(f"cell{number}", form)] if form else [])]
    row = np.zeros(1, np.dtype(fields))
    row["cells"] = len(even)
    for number, (_, length) in enumerate(even):
        row[f"length{number}"] = length
    return row
