# SPDX-License-Identifier: Apache-2.0
"""Typed structs to MessagePack and back: the size is checked first, then the structure, then the types.

`msgpack` stays on the wire path for its bounds (each length claim is refused before memory is set aside) and its ext
types; `msgspec` gives types and validation. docs/adr/0002 records what that costs.
"""

from typing import Any, Final, TypeVar

import msgpack
import msgspec

from qubix_protocol.errors import Malformed, TooLarge
from qubix_protocol.units import FRAME_BYTES_MAX

T = TypeVar("T")
_ITEMS_MAX: Final = 8192


def encode(value: msgspec.Struct) -> bytes:
    """MessagePack of a struct. `TooLarge` is the reader's business: writers know what they send."""
    packed: bytes = msgpack.packb(msgspec.to_builtins(value, builtin_types=(bytes,)), use_bin_type=True)
    return packed


def decode(data: bytes, kind: type[T], *, limit_bytes: int = FRAME_BYTES_MAX) -> T:
    """One value of `kind` (a struct or a union of tagged structs) from exactly `data`.

    Raises `TooLarge` before looking inside, `Malformed` when it is not MessagePack or not of the type.
    """
    value: T = convert(unpack(data, limit_bytes=limit_bytes), kind)
    return value


def convert(value: Any, kind: Any) -> Any:
    """`value` (plain MessagePack types) as `kind`; `Malformed` names the field that does not fit."""
    try:
        return msgspec.convert(value, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise Malformed(str(error)) from error


def unpack(data: bytes, *, limit_bytes: int) -> Any:
    """Plain MessagePack types from exactly `data`, with every length bounded by the data's own."""
    if len(data) > limit_bytes:
        raise TooLarge(f"{len(data)} bytes are over the limit of {limit_bytes}")
    try:
        reader = _reader(len(data))
        reader.feed(data)
        value = reader.unpack()
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise Malformed(f"not MessagePack: {error or type(error).__name__}") from error
    if reader.tell() != len(data):
        raise Malformed(f"not MessagePack: {len(data) - reader.tell()} bytes follow the value")
    return value


def _reader(size: int) -> msgpack.Unpacker:
    """One that never sets aside more than `size` bytes for a length claim, and takes no ext types."""
    bound = min(size, _ITEMS_MAX)
    return msgpack.Unpacker(
        raw=False,
        strict_map_key=True,
        max_buffer_size=max(size, 1),
        max_str_len=size,
        max_bin_len=size,
        max_array_len=bound,
        max_map_len=bound,
        max_ext_len=0,
    )
