# SPDX-License-Identifier: Apache-2.0
"""The demonstration's two jobs, each with what is found out about its result on this machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from qubix.errors import NotGenuine, StartFailed
from qubix_protocol.arrays import Array

MATMUL_SIZE: Final = 2048
_ROWS_CHECKED: Final = 32
NEIGHBOURS: Final = 5
_ACCURACY_SLACK: Final = 0.01
"""Equal distances may be broken another way than scikit-learn does."""
Finding = Callable[[Mapping[str, Array]], dict[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoWork:
    """`find` looks at the result, gives figures to print, and raises `NotGenuine` when they cannot be right."""

    kernel: str
    title: str
    given: dict[str, Any]
    find: Finding


def works(size: int = MATMUL_SIZE) -> list[DemoWork]:
    return [digits(), matmul(size)]


def digits() -> DemoWork:
    """Nearest neighbours among scikit-learn's 1,797 handwritten digits (the UCI set, 8 × 8 grey levels)."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
        from sklearn.neighbors import KNeighborsClassifier
    except ImportError:
        raise StartFailed("scikit-learn is not installed here", remedy="Run: pip install 'qubix[demo]'") from None
    images, labels = load_digits(return_X_y=True)
    data, queries, known, wanted = train_test_split(
        images.astype(np.float32), labels, test_size=0.25, random_state=0, stratify=labels
    )
    reference = float(KNeighborsClassifier(NEIGHBOURS).fit(data, known).score(queries, wanted))

    def find(result: Mapping[str, Array]) -> dict[str, float]:
        accuracy = float(np.mean(majority(known[result["indices"]]) == wanted))
        if accuracy < reference - _ACCURACY_SLACK:
            raise NotGenuine(f"the neighbours give an accuracy of {accuracy:.4f}, scikit-learn {reference:.4f}")
        return {"accuracy": accuracy, "scikit-learn's accuracy": reference}

    return DemoWork(
        kernel="knn",
        title=f"{len(queries):,} handwritten digits told by their {NEIGHBOURS} nearest among {len(data):,}",
        given={"queries": queries, "data": data, "k": NEIGHBOURS},
        find=find,
    )


def majority(votes: Array) -> Array:
    """The most frequent label of each row; the smallest of those that are equally frequent."""
    counts = np.stack([(votes == label).sum(axis=1) for label in range(int(votes.max()) + 1)], axis=1)
    return np.asarray(counts.argmax(axis=1))


def matmul(size: int) -> DemoWork:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((size, size), dtype=np.float32)
    b = rng.standard_normal((size, size), dtype=np.float32)

    def find(result: Mapping[str, Array]) -> dict[str, float]:
        rows = rng.choice(size, _ROWS_CHECKED, replace=False)
        exact = a[rows].astype(np.float64) @ b.astype(np.float64)
        error = float(np.abs(result["c"][rows] - exact).max())
        # No float32 product of this length can be further off, in whatever order its sums are taken.
        bound = size * float(np.finfo(np.float32).eps) * float((np.abs(a[rows]) @ np.abs(b)).max())
        if not error <= bound:
            raise NotGenuine(f"the product is off by {error:g}, which float32 cannot explain ({bound:g})")
        return {"largest error": error, "rows checked in float64": _ROWS_CHECKED}

    return DemoWork(
        kernel="matmul", title=f"the product of two {size} × {size} float32 matrices", given={"a": a, "b": b}, find=find
    )
