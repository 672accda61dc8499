# SPDX-License-Identifier: Apache-2.0
"""The CPU back end: BLAS for the pages, threads over pages for their digests."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from qubix_kernels.trial import rules
from qubix_protocol.trials import TrialShape

_PAGES_AT_ONCE = 16
"""Made by one product: enough rows for BLAS to be quick."""


class CpuMemory:
    """Takes the room at once, and touches all of it, so that a lack of it shows before time is counted."""

    def __init__(self, shape: TrialShape, device_id: str) -> None:
        self._shape, self._device_id = shape, device_id
        self._pages = np.empty((shape.pages, shape.rows, shape.columns), dtype=np.uint32)
        self._pages.fill(0)

    def fill(self, seed: bytes) -> None:
        shape, left = self._shape, rules.secret_of(seed, self._device_id, "left")
        right = rules.Right(shape, seed, self._device_id).matrix
        for first in range(0, shape.pages, _PAGES_AT_ONCE):
            pages = self._pages[first : first + _PAGES_AT_ONCE]
            rows = len(pages) * shape.rows
            product = rules.entries(left, first * shape.rows, rows, shape.depth) @ right
            pages[:] = rules.packed(product).reshape(pages.shape)

    def digests(self, key: bytes) -> bytes:
        at = rules.places(rules.secret_of(key, self._device_id, "key"), self._shape)
        threads = max(1, min(os.cpu_count() or 1, self._shape.pages))
        shares = np.array_split(np.arange(self._shape.pages), threads)

        def some(numbers: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]") -> list[int]:
            room, spare = np.empty_like(at), np.empty_like(at)
            return [rules.digest(self._pages[number], at, room, spare) for number in numbers]

        with ThreadPoolExecutor(threads) as pool:
            found = [one for share in pool.map(some, shares) for one in share]
        return np.array(found, dtype=">u4").tobytes()
