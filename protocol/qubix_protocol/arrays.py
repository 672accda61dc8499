# SPDX-License-Identifier: Apache-2.0
"""Arrays on the wire and in artifacts.

An *input* artifact is one `.npy` file (NumPy's own format, version 1.0 or 2.0, C order): a person can make and read it
with `np.save` and `np.load`. A *chunk's output* is one MessagePack map from name to array, each array an ext value of
code `ARRAY_EXT`: `[dtype, shape, bytes]`, little endian, C order. Nothing here ever unpickles.
"""

import io
import math
from collections.abc import Mapping
from typing import Any, Final

import msgpack
import msgspec
import numpy as np
from numpy.typing import NDArray

from qubix_protocol.errors import Malformed
from qubix_protocol.units import ARRAY_BYTES_MAX, ARRAY_DIMS_MAX, INPUTS_MAX

Array = NDArray[Any]

ARRAY_EXT: Final = 1
DTYPES: Final = frozenset(
    {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"}
)
_NPY_HEADER_BYTES_MAX: Final = 4096


class ArrayMeta(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an array is, without its data. `dtype` is NumPy's name, such as "float32"."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * np.dtype(self.dtype).itemsize

    @classmethod
    def of(cls, array: Array) -> "ArrayMeta":
        return cls(array.dtype.name, tuple(int(n) for n in array.shape))

    def check(self) -> "ArrayMeta":
        """Itself, or `Malformed` when no array may look like this."""
        if self.dtype not in DTYPES:
            raise Malformed(f"array dtype {self.dtype!r} is not one of {', '.join(sorted(DTYPES))}")
        if len(self.shape) > ARRAY_DIMS_MAX or any(n < 0 or n > ARRAY_BYTES_MAX for n in self.shape):
            raise Malformed(f"array shape {self.shape} is out of bounds")
        if self.nbytes > ARRAY_BYTES_MAX:
            raise Malformed(f"an array of {self.nbytes} bytes is over the limit of {ARRAY_BYTES_MAX}")
        return self


def to_npy(array: Array) -> bytes:
    """The array as a `.npy` file. Fortran-ordered and big-endian arrays are converted."""
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    out = io.BytesIO()
    np.lib.format.write_array(out, plain.reshape(array.shape), version=(1, 0), allow_pickle=False)
    return out.getvalue()


def npy_header(head: bytes) -> tuple[ArrayMeta, int]:
    """What a `.npy` file that starts with `head` contains, and where its data begins.

    `head` needs the whole header (a kilobyte is plenty). Raises `Malformed` on anything but a plain C-ordered,
    little-endian array of a known dtype.
    """
    stream = io.BytesIO(head[: _NPY_HEADER_BYTES_MAX + 16])
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=_NPY_HEADER_BYTES_MAX)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream, max_header_size=_NPY_HEADER_BYTES_MAX)
        else:
            raise Malformed(f".npy version {version} is not supported; save it with numpy.save")
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise Malformed(f"not a .npy file: {error}") from error
    if fortran and len(shape) > 1:
        raise Malformed("the array is in Fortran order; save numpy.ascontiguousarray(array)")
    if dtype.hasobject or dtype.names is not None or dtype.byteorder == ">":
        raise Malformed(f"dtype {dtype} is not a plain little-endian number type")
    return ArrayMeta(dtype.name, tuple(int(n) for n in shape)).check(), stream.tell()


def from_npy(data: bytes | memoryview) -> Array:
    """The array of a `.npy` file, as a read-only view of `data` (no copy)."""
    meta, start = npy_header(bytes(data[: _NPY_HEADER_BYTES_MAX + 16]))
    if len(data) - start != meta.nbytes:
        raise Malformed(f"the .npy header promises {meta.nbytes} bytes of data, {len(data) - start} follow")
    array = np.frombuffer(data, dtype=meta.dtype, offset=start, count=meta.size).reshape(meta.shape)
    array.flags.writeable = False
    return array


def npy_prefix(meta: ArrayMeta) -> bytes:
    """The head of a `.npy` file for such an array: what must stand before its raw bytes."""
    out = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(meta.dtype)), "fortran_order": False, "shape": meta.shape}
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue()


def pack_arrays(arrays: Mapping[str, Array]) -> bytes:
    """A chunk's outputs as one artifact."""
    packed: bytes = msgpack.packb({name: _ext(array) for name, array in arrays.items()}, use_bin_type=True)
    return packed


def unpack_arrays(data: bytes | memoryview) -> dict[str, Array]:
    """The arrays of `pack_arrays`, as read-only views. Raises `Malformed`; sizes are bounded by `len(data)`."""
    try:
        found = msgpack.unpackb(
            data,
            ext_hook=_array_of_ext,
            object_pairs_hook=_once,
            raw=False,
            strict_map_key=True,
            max_map_len=INPUTS_MAX,
            max_array_len=0,
            max_bin_len=0,
            max_str_len=256,
            max_ext_len=len(data),
        )
    except Malformed:
        raise
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise Malformed(f"not a map of arrays: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(v, np.ndarray) for v in found.values()):
        raise Malformed("not a map of arrays")
    return found


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Two arrays of one name would be another result for each reader: the one that checks and the one that is paid."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("two arrays have the same name")
    return found


def _ext(array: Array) -> msgpack.ExtType:
    meta = ArrayMeta.of(array).check()
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    head: bytes = msgpack.packb([meta.dtype, list(meta.shape)])
    return msgpack.ExtType(ARRAY_EXT, bytes([len(head)]) + head + plain.tobytes())


def _array_of_ext(code: int, data: bytes) -> Array:
    if code != ARRAY_EXT or not data:
        raise Malformed(f"unknown ext type {code}")
    start = 1 + data[0]
    head = msgpack.unpackb(data[1:start], max_array_len=ARRAY_DIMS_MAX, max_str_len=16)
    meta = msgspec.convert(dict(zip(("dtype", "shape"), head, strict=True)), ArrayMeta).check()
    if len(data) - start != meta.nbytes:
        raise Malformed(f"an array of {meta.nbytes} bytes came with {len(data) - start}")
    array = np.frombuffer(data, dtype=meta.dtype, offset=start, count=meta.size).reshape(meta.shape)
    array.flags.writeable = False
    return array
