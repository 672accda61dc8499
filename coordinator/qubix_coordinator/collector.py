# SPDX-License-Identifier: Apache-2.0
"""Python's collector of cycles in a process that serves: it neither looks through what stays for good, nor after every
700 objects, of which a batch of samples alone makes thousands and leaves no cycle."""

import gc
from typing import Final

YOUNG: Final = 20_000
"""Objects that must have come, and not gone, before it looks through those."""


def settle() -> None:
    """Once a process has started. It stops for as long as one full collection takes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 10, 10)
