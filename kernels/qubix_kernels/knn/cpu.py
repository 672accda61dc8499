# SPDX-License-Identifier: Apache-2.0
"""The CPU back end: BLAS finds candidates, float64 decides among them."""

from typing import Final

import numpy as np

from qubix_kernels.knn.inputs import check_finite
from qubix_protocol.arrays import Array

_BLOCK_BYTES: Final = 32 * 1024 * 1024


def search(queries: Array, data: Array, k: int) -> tuple[Array, Array]:
    """The k nearest rows of `data` (n, d) for each of `queries` (q, d).

    Indices are int64, squared distances float32, both of shape (q, k), nearest first.
    Ties go to the lower index. Raises `BadInput` for NaN or infinity.
    """
    check_finite("queries", queries)
    check_finite("data", data)
    with np.errstate(all="ignore"):
        centre = data.mean(axis=0, dtype=np.float64).astype(np.float32)  # moves all alike, and cancellation shrinks
        moved = data - centre
        norms = np.einsum("nd,nd->n", moved, moved)
    step = max(1, _BLOCK_BYTES // (4 * len(data)))
    blocks = [_search_block(queries[i : i + step], data, k, moved, norms, centre) for i in range(0, len(queries), step)]
    return np.concatenate([b[0] for b in blocks]), np.concatenate([b[1] for b in blocks])


def _search_block(
    queries: Array, data: Array, k: int, moved: Array, norms: Array, centre: Array
) -> tuple[Array, Array]:
    rows, columns = _candidates(queries, k, moved, norms, centre)
    exact = _distances(queries, data, rows, columns)
    order = np.lexsort((columns, exact, rows))
    starts = np.searchsorted(rows[order], np.arange(len(queries)))
    chosen = order[starts[:, None] + np.arange(k)]
    with np.errstate(over="ignore"):
        return columns[chosen].astype(np.int64), exact[chosen].astype(np.float32)


def _candidates(queries: Array, k: int, moved: Array, norms: Array, centre: Array) -> tuple[Array, Array]:
    """(query, row) pairs that may be among the k nearest, as far as |x|² - 2xy + |y|² in float32 can tell."""
    with np.errstate(all="ignore"):
        shifted = queries - centre
        sizes = np.einsum("qd,qd->q", shifted, shifted)
        rough = shifted @ moved.T
        rough *= -2
        rough += norms
        rough += sizes[:, None]
        slack = np.float32(np.finfo(np.float32).eps) * np.float32(8 + 2 * np.sqrt(moved.shape[1]))
        limit = np.partition(rough, k - 1, axis=1)[:, k - 1] + 2 * slack * (sizes + norms.max())
        keep = ~(rough > limit[:, None])  # what overflowed to NaN stays a candidate
    return np.nonzero(keep)  # type: ignore[return-value]


def _distances(queries: Array, data: Array, rows: Array, columns: Array) -> Array:
    """Squared distances of the pairs, float64."""
    found = np.empty(len(rows))
    step = max(1, _BLOCK_BYTES // (8 * data.shape[1]))
    for i in range(0, len(rows), step):
        part = slice(i, i + step)
        apart = data[columns[part]].astype(np.float64) - queries[rows[part]]
        found[part] = np.einsum("pd,pd->p", apart, apart)
    return found
