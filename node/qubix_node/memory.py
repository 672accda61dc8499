# SPDX-License-Identifier: Apache-2.0
"""Keeps an idle node small: what a job's data took goes back to the system.

glibc learns from the first large block that is freed to keep such blocks for itself, and gives each thread an arena of
its own; with the two values fixed (mallopt(3)) a node that has moved gigabytes is as small as before.
"""

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGE_BYTES: Final = 256 * 1024
_ARENAS: Final = 2


def give_back_large_blocks() -> bool:
    """Call it once, before other threads start. False where the C library has no such thing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)) and bool(mallopt(_M_ARENA_MAX, _ARENAS))
