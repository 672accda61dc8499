# SPDX-License-Identifier: Apache-2.0
"""Overwriting a card's memory between two jobs (trust.md B2): drivers hand it out as the last process left it.

A step of ours, in a worker of its own, on a card that nobody else uses meanwhile.
"""

from typing import Final, Generic, Protocol, TypeVar

import msgspec

MIB: Final = 1024**2
_FIRST_BYTES: Final = 4096 * MIB
_LAST_BYTES: Final = 512
_SLACK_BYTES: Final = 256 * MIB
"""What may stay out of reach: the driver's own, and what is smaller than any allocation."""
_SHARE_MIN: Final = 0.98
Block = TypeVar("Block")


class Memory(Protocol, Generic[Block]):
    """Of one card. `fake` in tests and `cuda` implement it."""

    def free_bytes(self) -> int: ...

    def take(self, size: int) -> Block:
        """Raises MemoryError."""
        ...

    def clear(self, block: Block, size: int) -> None:
        """Zeros, for certain: it has happened when this returns."""
        ...

    def clear_on_chip(self) -> None:
        """The multiprocessors' shared memory."""
        ...


class Wiped(msgspec.Struct, frozen=True, kw_only=True):
    free_bytes: int
    cleared_bytes: int

    @property
    def whole(self) -> bool:
        return self.cleared_bytes >= min(self.free_bytes * _SHARE_MIN, self.free_bytes - _SLACK_BYTES)


def overwrite(memory: Memory[Block]) -> Wiped:
    """Takes all that is free, in falling sizes, and keeps it until the end: so each byte is taken once."""
    memory.clear_on_chip()  # while there is room for what that needs
    free, size, cleared = memory.free_bytes(), _FIRST_BYTES, 0
    kept: list[Block] = []
    while size >= _LAST_BYTES:
        try:
            block = memory.take(size)
        except MemoryError:
            size //= 2
            continue
        kept.append(block)
        memory.clear(block, size)
        cleared += size
    return Wiped(free_bytes=free, cleared_bytes=cleared)
