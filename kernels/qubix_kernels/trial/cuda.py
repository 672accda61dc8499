# SPDX-License-Identifier: Apache-2.0
"""The CUDA back end: the matrix products of `matmul`, and three small functions around them. Imported by workers alone.

Words are computed as 64-bit numbers and masked, which the compiler makes 32-bit operations of.
"""

from typing import Any, Final

import numpy as np

from qubix_kernels.cuda import DeviceKernel, blocks_for, cuda, device, empty, fetch, float32, uint32, uint64, warm_up
from qubix_kernels.matmul.cuda import launch, warm_up_for
from qubix_kernels.trial import rules
from qubix_protocol.arrays import Array
from qubix_protocol.trials import TrialShape

_THREADS: Final = 256
_ACROSS, _DOWN = 32, 8
_WORD: Final = 0xFFFFFFFF
_ROW_STEP, _COLUMN_STEP, _MIX_1, _MIX_2 = rules.ROW_STEP, rules.COLUMN_STEP, rules.MIX_1, rules.MIX_2
_DIGEST_1, _DIGEST_2, _SPREAD, _HALF = rules.DIGEST_1, rules.DIGEST_2, rules.SPREAD, rules.HALF
_SLAB_ROWS_MAX: Final = 8192
"""Rows that one product makes: enough to keep a card busy, and little beside its memory."""
_BLOCK_BYTES: Final = 1024**3
"""Memory is taken in pieces of about so much: no index then needs more than 32 bits."""


@cuda.jit(device=True)  # type: ignore[untyped-decorator]
def _mixed(word: Any) -> Any:
    word ^= word >> uint64(16)
    word = (word * uint64(_MIX_1)) & uint64(_WORD)
    word ^= word >> uint64(13)
    word = (word * uint64(_MIX_2)) & uint64(_WORD)
    return word ^ (word >> uint64(16))


def _entries(seed0: Any, seed1: Any, first_row: Any, matrix: Any) -> None:
    """`rules.entries` from `first_row` on, as many rows as the matrix has."""
    column = cuda.blockIdx.x * _ACROSS + cuda.threadIdx.x
    row = cuda.blockIdx.y * _DOWN + cuda.threadIdx.y
    if row < matrix.shape[0] and column < matrix.shape[1]:
        down = (uint64(first_row) + uint64(row)) & uint64(_WORD)
        down = ((down * uint64(_ROW_STEP)) & uint64(_WORD)) + uint64(seed0) & uint64(_WORD)
        across = ((uint64(column) * uint64(_COLUMN_STEP)) & uint64(_WORD)) + uint64(seed1) & uint64(_WORD)
        word = _mixed(_mixed(down) ^ across)
        matrix[row, column] = float32(word % uint64(_SPREAD)) - float32(_HALF)


def _pack(product: Any, first_row: Any, words: Any) -> None:
    """`rules.packed`: rows of the product become rows of `words` from `first_row` on."""
    column = cuda.blockIdx.x * _ACROSS + cuda.threadIdx.x
    row = cuda.blockIdx.y * _DOWN + cuda.threadIdx.y
    if row < product.shape[0] and column < words.shape[1]:
        low = uint32(int(product[row, column]) & 0xFFFF)
        high = uint32(int(product[row, column + words.shape[1]]) & 0xFFFF)
        words[uint32(first_row) + uint32(row), column] = low | (high << uint32(16))


def _digest(words: Any, rows: Any, key0: Any, key1: Any, digests: Any) -> None:
    """`rules.digest` of the page that the block is about: `rows` rows of `words` each."""
    parts = cuda.shared.array(_THREADS, uint32)
    columns = words.shape[1]
    total = uint64(0)
    for place in range(cuda.threadIdx.x, rows * columns, _THREADS):
        at = ((uint64(place) * uint64(_ROW_STEP)) & uint64(_WORD)) + uint64(key0) & uint64(_WORD)
        row = uint32(cuda.blockIdx.x) * uint32(rows) + uint32(place // columns)
        word = uint64(words[row, uint32(place % columns)]) ^ _mixed(at) ^ uint64(key1)
        word = (word * uint64(_DIGEST_1)) & uint64(_WORD)
        word ^= word >> uint64(15)
        word = (word * uint64(_DIGEST_2)) & uint64(_WORD)
        total += word ^ (word >> uint64(13))
    parts[cuda.threadIdx.x] = uint32(total & uint64(_WORD))
    cuda.syncthreads()
    step = _THREADS // 2
    while step > 0:
        if cuda.threadIdx.x < step:
            both = uint64(parts[cuda.threadIdx.x]) + uint64(parts[cuda.threadIdx.x + step])
            parts[cuda.threadIdx.x] = uint32(both & uint64(_WORD))
        cuda.syncthreads()
        step //= 2
    if cuda.threadIdx.x == 0:
        digests[cuda.blockIdx.x] = parts[0]


ENTRIES: Final = DeviceKernel(
    name="trial_entries",
    function=_entries,
    signature="void(uint32, uint32, uint32, float32[:, ::1])",
    block=(_ACROSS, _DOWN),
    blocks_per_sm=4,
    registers_max=48,
)
PACK: Final = DeviceKernel(
    name="trial_pack",
    function=_pack,
    signature="void(float32[:, ::1], uint32, uint32[:, ::1])",
    block=(_ACROSS, _DOWN),
    blocks_per_sm=4,
    registers_max=48,
)
DIGEST: Final = DeviceKernel(
    name="trial_digest",
    function=_digest,
    signature="void(uint32[:, ::1], int32, uint32, uint32, uint32[::1])",
    block=(_THREADS,),
    blocks_per_sm=4,
    registers_max=48,
)
DEVICE_KERNELS: Final = (ENTRIES, PACK, DIGEST)


class CudaMemory:
    """All of the room is taken, and everything compiled, before time is counted."""

    def __init__(self, shape: TrialShape, device_id: str) -> None:
        self._shape, self._device_id = shape, device_id
        warm_up(DEVICE_KERNELS)
        warm_up_for("float32")
        self._slab_rows = max(1, _SLAB_ROWS_MAX // shape.rows) * shape.rows
        pages_each = max(1, _BLOCK_BYTES // (rules.WORD_BYTES * shape.rows * shape.columns))
        with device():
            self._right = empty((shape.depth, 2 * shape.columns), np.float32)
            self._left = empty((self._slab_rows, shape.depth), np.float32)
            self._product = empty((self._slab_rows, 2 * shape.columns), np.float32)
            self._blocks = [
                empty((min(pages_each, shape.pages - first) * shape.rows, shape.columns), np.uint32)
                for first in range(0, shape.pages, pages_each)
            ]

    def fill(self, seed: bytes) -> None:
        left = rules.secret_of(seed, self._device_id, "left")
        with device():
            _launch_entries(rules.secret_of(seed, self._device_id, "right"), 0, self._right)
            first = 0
            for block in self._blocks:
                for start in range(0, block.shape[0], self._slab_rows):
                    rows = min(self._slab_rows, block.shape[0] - start)
                    self._slab(left, first + start, rows, block, start)
                first += block.shape[0]
            cuda.synchronize()

    def _slab(self, seed: tuple[int, int], first_row: int, rows: int, block: Any, start: int) -> None:
        matrix, product = self._left[:rows], self._product[:rows]
        _launch_entries(seed, first_row, matrix)
        launch(matrix, self._right, product)
        grid = blocks_for(self._shape.columns, _ACROSS), blocks_for(rows, _DOWN)
        PACK.launch(grid, product, np.uint32(start), block)

    def digests(self, key: bytes) -> bytes:
        key0, key1 = rules.secret_of(key, self._device_id, "key")
        found: list[Array] = []
        with device():
            for block in self._blocks:
                pages = block.shape[0] // self._shape.rows
                digests = empty((pages,), np.uint32)
                DIGEST.launch((pages,), block, np.int32(self._shape.rows), np.uint32(key0), np.uint32(key1), digests)
                found.append(fetch(digests))
        return np.concatenate(found).astype(">u4").tobytes()


def _launch_entries(seed: tuple[int, int], first_row: int, matrix: Any) -> None:
    grid = blocks_for(matrix.shape[1], _ACROSS), blocks_for(matrix.shape[0], _DOWN)
    ENTRIES.launch(grid, np.uint32(seed[0]), np.uint32(seed[1]), np.uint32(first_row), matrix)
