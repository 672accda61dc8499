# SPDX-License-Identifier: Apache-2.0
"""Memory of the host in which results land: the same for one chunk after another."""

import math
import sys
from typing import Any, Final

import numpy as np

from qubix_protocol.arrays import Array

_LEAST_BYTES: Final = 1024**2
_MOST_BYTES: Final = 512 * 1024**2
_ROOMS: Final = 2
"""A chunk is still being written while the next one is computed."""
_NOBODY: Final = 3
"""References to a room that nobody uses: the list's, the loop's and the question's own."""


class Landing:
    """Gives out arrays, and takes their memory again once nobody holds them. Pages that a system gives anew are cleared
    when they are first touched, which takes three times as long as the bus. An array's views keep its memory, too."""

    def __init__(self) -> None:
        self._rooms: list[Array] = []

    def array(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Its numbers are whatever was there."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if not _LEAST_BYTES <= size <= _MOST_BYTES:
            return np.empty(shape, dtype)
        made: Array = self._room(size)[:size].view(dtype).reshape(shape)
        return made

    def _room(self, size: int) -> Array:
        free = None
        for at in range(len(self._rooms)):
            room = self._rooms[at]
            if sys.getrefcount(room) <= _NOBODY:
                if room.size >= size:
                    return room
                free = at
        if free is not None:
            del self._rooms[free]  # too small: given back before more is taken
        made = np.empty(size, np.uint8)
        if len(self._rooms) < _ROOMS:
            self._rooms.append(made)
        return made
