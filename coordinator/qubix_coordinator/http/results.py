# SPDX-License-Identifier: Apache-2.0
"""One output of a job as a `.npy` file, joined from its parts while it is sent: nothing is held whole in memory.

A part is `arrays.pack_arrays`: a MessagePack map from name to ext value. Its heads are read, its data is passed on.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import msgpack

from qubix_protocol.arrays import ARRAY_EXT, ArrayMeta
from qubix_protocol.errors import Malformed

_HEAD_BYTES: Final = 1024
_EXT_LENGTH_BYTES: Final = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXEXT_LENGTH: Final = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
Read = Callable[[int, int], Awaitable[bytes]]
"""Bytes [start, stop) of one part, or fewer at its end."""
Stream = Callable[[int, int], AsyncIterator[bytes]]


class Span(NamedTuple):
    start: int
    stop: int


def form_of(whole: ArrayMeta, units: int) -> ArrayMeta:
    """Of the rows that were paid; a unit is a row of every output."""
    return ArrayMeta(whole.dtype, (units, *whole.shape[1:]))


async def find_array(read: Read, name: str) -> Span:
    """Where the raw bytes of the array `name` stand in a part. Raises Malformed."""
    at, left = _map_head(await read(0, _HEAD_BYTES))
    while left:
        head = await read(at, at + _HEAD_BYTES)
        found, data = _entry(head)
        span = Span(at + data.start, at + data.stop)
        if found == name:
            return span
        at, left = span.stop, left - 1
    raise Malformed(f"the part has no array {name!r}")


async def join(parts: Sequence[tuple[Span, Stream]], prefix: bytes) -> AsyncIterator[bytes]:
    yield prefix
    for span, stream in parts:
        async for piece in stream(span.start, span.stop):
            yield piece


def _map_head(head: bytes) -> tuple[int, int]:
    """Length of the map's own head, and how many entries follow."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(head)
    try:
        entries = unpacker.read_map_header()
        return unpacker.tell(), entries
    except (ValueError, msgpack.UnpackException) as error:
        raise Malformed(f"not a map of arrays: {error or type(error).__name__}") from error


def _entry(head: bytes) -> tuple[str, Span]:
    """One entry's name, and where the array's data stands, both from the entry's first byte."""
    unpacker = msgpack.Unpacker(raw=False)
    unpacker.feed(head)
    try:
        name = unpacker.unpack()
        at = unpacker.tell()
        start, length = _ext_head(head, at)
        return str(name), Span(start + 1 + head[start], start + length)
    except (ValueError, IndexError, msgpack.UnpackException) as error:
        raise Malformed(f"not an array: {error or type(error).__name__}") from error


def _ext_head(head: bytes, at: int) -> tuple[int, int]:
    """Where an ext value's payload starts, and its length."""
    width = _EXT_LENGTH_BYTES.get(head[at], 0)
    length = int.from_bytes(head[at + 1 : at + 1 + width], "big") if width else _FIXEXT_LENGTH.get(head[at], 0)
    start = at + 1 + width + 1
    if length < 1 or head[start - 1] != ARRAY_EXT:
        raise ValueError("the value is not an array")
    return start, length
