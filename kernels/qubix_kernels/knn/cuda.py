# SPDX-License-Identifier: Apache-2.0
"""The CUDA back end: tiles of distances of which only candidates leave the registers; notes.md has the arithmetic.

Rows of `data` are gone through in rounds. A round computes the distances of all queries to some rows and keeps those
that are nearer than the k-th best so far, in a list for each query; a second kernel sorts each list with the k best
into the new k best. Distances come from differences, in float32. Indices are masked as in matmul.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from qubix_kernels.cuda import (
    ALIGNED,
    DeviceKernel,
    blocks_for,
    cuda,
    device,
    empty,
    fetch,
    float32,
    int32,
    send,
    uint32,
    warm_up,
)
from qubix_kernels.knn.inputs import check_finite
from qubix_kernels.resident import Resident
from qubix_protocol.arrays import Array

_TILE, _SIDE, _DEPTH = 64, 16, 8
_THREADS: Final = _SIDE * _SIDE
_LOADS: Final = _TILE * _DEPTH // _THREADS
_ROW_STEP: Final = _THREADS // _DEPTH
_EDGE: Final = (2, _DEPTH, _TILE + 4)  # 4 more: the stores of a warp meet no bank twice
_STEPS_A_SUM: Final = 32
_LAST: Final = 2**31 - 1
_LISTS: Final = "float32[:, ::1], int32[:, ::1]"
_LISTS_BYTES: Final = 256 * 1024 * 1024


def _collect(
    queries: Any, data: Any, start: Any, stop: Any, held: Any, worst: Any, counts: Any, near: Any, rows: Any
) -> None:
    """Appends to each query's list the rows in [start, stop) that are nearer than its `worst`; all while none is held.

    `counts` goes on rising where a list is full. Each thread has 4 × 4 distances. They are summed in parts of 256
    dimensions, so that rounding which goes one way stays small beside what the check allows.
    """
    left = cuda.shared.array(_EDGE, float32, ALIGNED)
    right = cuda.shared.array(_EDGE, float32, ALIGNED)
    sums = cuda.local.array((4, 4), float32)
    totals = cuda.local.array((4, 4), float32)
    of_query = cuda.local.array((2, 4), float32)
    of_row = cuda.local.array((2, 4), float32)
    next_left = cuda.local.array(_LOADS, float32)
    next_right = cuda.local.array(_LOADS, float32)
    t = cuda.threadIdx.x
    own_query, own_row = (t // _SIDE & _SIDE - 1) * 4, (t & _SIDE - 1) * 4
    first_query, first_row = cuda.blockIdx.y * _TILE, start + cuda.blockIdx.x * _TILE
    depth, line = t & _DEPTH - 1, t // _DEPTH & _TILE - 1
    last = queries.shape[1] - 1
    for i in range(4):
        for j in range(4):
            sums[i, j] = float32(0)
            totals[i, j] = float32(0)

    for i in range(_LOADS):
        query = uint32(min(first_query + line + i * _ROW_STEP, queries.shape[0] - 1))
        row = uint32(min(first_row + line + i * _ROW_STEP, stop - 1))
        left[0, depth, line + i * _ROW_STEP] = queries[query, depth] if depth <= last else float32(0)
        right[0, depth, line + i * _ROW_STEP] = data[row, depth] if depth <= last else float32(0)
    cuda.syncthreads()

    for step in range(1, last // _DEPTH + 2):
        spare = step & 1
        now = spare ^ 1
        ahead = step * _DEPTH + depth
        for i in range(_LOADS):
            query = uint32(min(first_query + line + i * _ROW_STEP, queries.shape[0] - 1))
            row = uint32(min(first_row + line + i * _ROW_STEP, stop - 1))
            next_left[i] = queries[query, uint32(ahead)] if ahead <= last else float32(0)
            next_right[i] = data[row, uint32(ahead)] if ahead <= last else float32(0)
        for pair in range(0, _DEPTH, 2):
            deep = pair & _DEPTH - 2
            for i in range(4):
                of_query[0, i] = left[now, deep, own_query + i]
                of_row[0, i] = right[now, deep, own_row + i]
                of_query[1, i] = left[now, deep + 1, own_query + i]
                of_row[1, i] = right[now, deep + 1, own_row + i]
            for i in range(4):
                for j in range(4):
                    apart = of_query[0, i] - of_row[0, j]
                    sums[i, j] += apart * apart
                    apart = of_query[1, i] - of_row[1, j]
                    sums[i, j] += apart * apart
        if step % _STEPS_A_SUM == 0:
            for i in range(4):
                for j in range(4):
                    totals[i, j] += sums[i, j]
                    sums[i, j] = float32(0)
        for i in range(_LOADS):
            left[spare, depth, line + i * _ROW_STEP] = next_left[i]
            right[spare, depth, line + i * _ROW_STEP] = next_right[i]
        cuda.syncthreads()

    for i in range(4):
        query = first_query + own_query + i
        if query < queries.shape[0]:
            for j in range(4):
                row = first_row + own_row + j
                distance = totals[i, j] + sums[i, j]
                if row < stop and (held == 0 or distance < worst[query]):
                    at = cuda.atomic.add(counts, query, 1)
                    if at < near.shape[1]:
                        near[query, at] = distance
                        rows[query, at] = row


def _sorting(capacity: int, threads: int) -> Callable[..., None]:
    def select(counts: Any, near: Any, rows: Any, held: Any, distances: Any, indices: Any, worst: Any) -> None:
        """A block for each query: its list and the `held` best so far, sorted, become the new best; ties by index."""
        keys = cuda.shared.array(capacity, float32)
        values = cuda.shared.array(capacity, int32)
        t, query, k = cuda.threadIdx.x, cuda.blockIdx.x, distances.shape[1]
        total = held + counts[query]
        size = 2
        while size < total:
            size *= 2
        for at in range(t, size, threads):
            if at < held:
                keys[at] = distances[query, at]
                values[at] = indices[query, at]
            elif at < total:
                keys[at] = near[query, at - held]
                values[at] = rows[query, at - held]
            else:
                keys[at] = float32(np.inf)
                values[at] = _LAST
        cuda.syncthreads()
        span = 2
        while span <= size:
            step = span // 2
            while step > 0:
                for at in range(t, size // 2, threads):
                    low = 2 * at - (at & step - 1)
                    high = low + step
                    falls = keys[high] < keys[low] or (keys[high] == keys[low] and values[high] < values[low])
                    if falls == (low & span == 0):
                        key, value = keys[low], values[low]
                        keys[low], values[low] = keys[high], values[high]
                        keys[high], values[high] = key, value
                cuda.syncthreads()
                step //= 2
            span *= 2
        for at in range(t, k, threads):
            distances[query, at] = keys[at]
            indices[query, at] = values[at]
        if t == 0:
            worst[query] = keys[k - 1]

    return select


def _select(capacity: int, threads: int) -> DeviceKernel:
    return DeviceKernel(
        name=f"select_{capacity}",
        function=_sorting(capacity, threads),
        signature=f"void(int32[::1], {_LISTS}, int64, {_LISTS}, float32[::1])",
        block=(threads,),
        registers_max=72,
    )


COLLECT: Final = DeviceKernel(
    name="collect",
    function=_collect,
    signature=f"void(float32[:, ::1], float32[:, ::1], int64, int64, int64, float32[::1], int32[::1], {_LISTS})",
    block=(_THREADS,),
    blocks_per_sm=3,
    registers_max=80,
)
_SMALL, _LARGE = 256, 4096
SELECT: Final = {_SMALL: _select(_SMALL, 32), _LARGE: _select(_LARGE, 256)}
DEVICE_KERNELS: Final = (COLLECT, *SELECT.values())


def warm_up_for(k: int) -> None:
    warm_up([COLLECT, SELECT[_capacity(k)]])


def _capacity(k: int) -> int:
    """Of a query's list with its k best."""
    return _SMALL if k <= _SMALL // 4 else _LARGE


def search(queries: Array, data: Array, k: int) -> tuple[Array, Array]:
    """The k nearest rows of `data` (n, d) for each of `queries` (q, d).

    Indices are int64, squared distances float32, both of shape (q, k), nearest first; ties in float32 go to the lower
    index. Raises `BadInput` for NaN or infinity.
    """
    check_finite("queries", queries)
    capacity = _capacity(k)
    step = _LISTS_BYTES // (8 * capacity)
    with device():
        rows = _data.get(data)
        parts = [_search(send(queries[i : i + step]), rows, k, capacity) for i in range(0, len(queries), step)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _load(data: Array) -> Any:
    check_finite("data", data)
    return send(data)


_data: Final = Resident(_load)


def _search(queries: Any, data: Any, k: int, capacity: int) -> tuple[Array, Array]:
    """As many rows a round as will, in random order, half fill the lists; no more than a list holds after one that
    did not fit, which is done again: then the order is not random, and growth is slow."""
    room, n = capacity - k, data.shape[0]
    lists = _Lists(queries.shape[0], k, room)
    at, width, growth = 0, room, 64
    while at < n:
        stop = min(n, at + width)
        if lists.round(queries, data, at, stop):
            at, width = stop, max(room, min(growth * width, stop * room // (2 * k)))
        else:
            width, growth = room, 2
    return fetch(lists.indices).astype(np.int64), fetch(lists.distances)


class _Lists:
    """What there is on the device for each query: the k best so far, and candidates."""

    def __init__(self, queries: int, k: int, room: int) -> None:
        self.distances, self.indices = empty((queries, k), np.float32), empty((queries, k), np.int32)
        self._near, self._rows = empty((queries, room), np.float32), empty((queries, room), np.int32)
        self._worst = empty((queries,), np.float32)
        self._select = SELECT[k + room]
        self._held = 0

    def round(self, queries: Any, data: Any, start: int, stop: int) -> bool:
        """Takes up rows [start, stop) of data; False, and nothing is changed, when a list has no room for them."""
        many, k = self.distances.shape
        room = self._near.shape[1]
        counts = send(np.zeros(many, np.int32))
        grid = (blocks_for(stop - start, _TILE), blocks_for(many, _TILE))
        COLLECT.launch(grid, queries, data, start, stop, self._held, self._worst, counts, self._near, self._rows)
        if fetch(counts).max() > room:
            return False
        self._select.launch(
            (many,), counts, self._near, self._rows, self._held, self.distances, self.indices, self._worst
        )
        self._held = k
        return True
