# SPDX-License-Identifier: Apache-2.0
"""What stays on a card between the chunks of a job."""

from collections.abc import Callable
from typing import Generic, TypeVar

from qubix_protocol.arrays import Array

T = TypeVar("T")


class Resident(Generic[T]):
    """Keeps what was made of the last array, for as long as the same one is asked for: the chunks of a job share an
    input, which need not cross the bus for each. Only a read-only array is known to be the same still."""

    def __init__(self, make: Callable[[Array], T]) -> None:
        self._make = make
        self._kept: tuple[Array, T] | None = None

    def get(self, array: Array) -> T:
        if self._kept is not None and array is self._kept[0] and not array.flags.writeable:
            return self._kept[1]
        self._kept = None  # gives the room back before more is taken
        made = self._make(array)
        self._kept = array, made
        return made
