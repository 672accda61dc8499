# SPDX-License-Identifier: Apache-2.0
"""What a job is given: arrays in memory or `.npy` files, each read in pieces: a file never has to fit in memory."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from qubix.errors import BadUsage
from qubix_protocol.arrays import Array, ArrayMeta, npy_header, npy_prefix
from qubix_protocol.errors import Malformed
from qubix_protocol.messages import ParamValue

_PIECE_BYTES: Final = 4 * 1024 * 1024
_HEADER_BYTES: Final = 8192
_SAVE_ANEW: Final = "Save it anew: numpy.save(file, numpy.ascontiguousarray(array, dtype=…)), with a plain number type"


class Source(Protocol):
    """One input as a `.npy` artifact."""

    @property
    def meta(self) -> ArrayMeta: ...

    @property
    def size_bytes(self) -> int: ...

    def read(self, start: int, stop: int) -> bytes: ...


class ArraySource:
    """An array in memory; its data is not copied when it is C-ordered and little-endian already."""

    def __init__(self, name: str, array: Array) -> None:
        try:
            self.meta: Final = ArrayMeta.of(array).check()
        except Malformed as error:
            raise BadUsage(name, f"{name}: {error}", "Convert it with array.astype(...)") from None
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        self._head = npy_prefix(self.meta)
        self._data: memoryview = plain.reshape(-1).view(np.uint8).data

    @property
    def size_bytes(self) -> int:
        return len(self._head) + len(self._data)

    def read(self, start: int, stop: int) -> bytes:
        head = len(self._head)
        return self._head[start:stop] + bytes(self._data[max(0, start - head) : max(0, stop - head)])


class FileSource:
    """A `.npy` file, read as it is needed."""

    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path = name, path
        try:
            with path.open("rb") as file:
                self.meta, start = npy_header(file.read(_HEADER_BYTES))
                self.size_bytes: int = os.fstat(file.fileno()).st_size
        except (OSError, Malformed) as error:
            if isinstance(error, OSError):
                raise self._unreadable(error) from None
            raise self._bad(str(error)) from None
        if start + self.meta.nbytes != self.size_bytes:
            raise self._bad(f"its header promises {self.meta.nbytes} bytes of data, {self.size_bytes - start} follow")

    def read(self, start: int, stop: int) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(start)
                return file.read(stop - start)
        except OSError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: OSError) -> BadUsage:
        problem = f"{self._name}: {self._path}: {error.strerror}"
        return BadUsage(self._name, problem, "Give the path of a .npy file that you may read")

    def _bad(self, problem: str) -> BadUsage:
        return BadUsage(self._name, f"{self._name}: {self._path}: {problem}", _SAVE_ANEW)


def source_of(name: str, value: Any) -> Source:
    """A path (text or `Path`) is a `.npy` file; anything else is what `numpy.asarray` makes of it."""
    if isinstance(value, (str, os.PathLike)):
        return FileSource(name, Path(value))
    return ArraySource(name, np.asarray(value))


def digest_of(source: Source) -> bytes:
    """SHA-256 of the artifact."""
    state = hashlib.sha256()
    for start in range(0, source.size_bytes, _PIECE_BYTES):
        state.update(source.read(start, min(start + _PIECE_BYTES, source.size_bytes)))
    return state.digest()


def param_of(name: str, value: Any) -> ParamValue:
    """A plain value; NumPy's scalars become Python's."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (bool, int, float, str)):
        return value
    raise BadUsage(
        name, f"{name}: a parameter is a number, text, True or False, not {type(value).__name__}", "Convert it"
    )


def sort_out(
    kernel: str,
    arrays: frozenset[str],
    params: frozenset[str],
    given: Mapping[str, Any],
    known: frozenset[str] = frozenset(),
) -> tuple[dict[str, Source], dict[str, ParamValue]]:
    """Which of `given` are the kernel's arrays and which its parameters.

    Raises `BadUsage` on a name of neither, and when an array is missing.

    `known` are the arrays that need not be given.
    """
    unknown = sorted(set(given) - arrays - params)
    if unknown:
        raise BadUsage(
            unknown[0],
            f"{kernel} takes nothing named {unknown[0]!r}",
            f"Its arrays: {', '.join(sorted(arrays)) or 'none'}; its parameters: {', '.join(sorted(params)) or 'none'}",
        )
    missing = sorted(arrays - set(given) - known)
    if missing:
        raise BadUsage(missing[0], f"{kernel} needs the array {missing[0]!r}", f"Give {missing[0]}=…")
    sources = {name: source_of(name, value) for name, value in given.items() if name in arrays}
    return sources, {name: param_of(name, value) for name, value in given.items() if name in params}
