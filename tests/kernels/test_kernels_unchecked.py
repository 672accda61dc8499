# SPDX-License-Identifier: Apache-2.0
"""A kernel without a verifier: its outputs' form is judged, and two runs of it are compared."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qubix_kernels import get
from qubix_kernels.kernel import ArraySpec, KernelSpec
from qubix_kernels.tasks import Part, VerifyTask, verify
from qubix_protocol.arrays import pack_arrays, to_npy
from qubix_protocol.errors import Malformed
from tests.support.own import unchecked

X = np.linspace(0.05, 0.95, 90)
PARAMS = {"steps": 200, "r": 3.9}


@pytest.fixture(autouse=True)
def with_orbit() -> Iterator[None]:
    with unchecked.registered():
        yield


def written(folder: Path, name: str, array: Any, edges: list[int]) -> tuple[Part, ...]:
    parts = []
    for start, stop in itertools.pairwise(edges):
        path = folder / f"{name}-{start}.bin"
        path.write_bytes(pack_arrays({"y": array[start:stop]}))
        parts.append(Part(start=start, stop=stop, path=str(path)))
    return tuple(parts)


def task(folder: Path, mine: tuple[Part, ...], others: tuple[Part, ...] = ()) -> VerifyTask:
    (folder / "x.npy").write_bytes(to_npy(X))
    inputs = {"x": str(folder / "x.npy")}
    return VerifyTask(kernel="orbit", params=PARAMS, inputs=inputs, parts=mine, others=others, seed=os.urandom(32))


def honest() -> Any:
    return get("orbit").run("cpu", {"x": X}, PARAMS)["y"]


def test_only_the_form_is_judged_where_nothing_is_compared(tmp_path: Path) -> None:
    made_up = np.full(90, 0.5)
    assert verify(task(tmp_path, written(tmp_path, "a", made_up, [0, 40, 90]))).parts == (True, True)
    done = verify(task(tmp_path, written(tmp_path, "b", made_up.astype(np.float32), [0, 40, 90])))
    assert (done.accepted, done.reason, done.parts) == (False, "shape", (False, False))


def test_two_honest_runs_are_one_however_they_were_cut(tmp_path: Path) -> None:
    mine, others = written(tmp_path, "a", honest(), [0, 10, 50, 90]), written(tmp_path, "b", honest(), [0, 33, 90])
    done = verify(task(tmp_path, mine, others))
    assert (done.accepted, done.reason, done.parts) == (True, "ok", (True, True, True))
    second = verify(task(tmp_path, mine[1:], others))
    assert second.parts == (True, True)


def test_one_wrong_number_is_found_in_its_part(tmp_path: Path) -> None:
    wrong = honest()
    wrong[77] = np.nextafter(wrong[77], 1.0)
    mine, others = written(tmp_path, "a", wrong, [0, 10, 50, 90]), written(tmp_path, "b", honest(), [0, 33, 90])
    done = verify(task(tmp_path, mine, others))
    assert (done.accepted, done.reason, done.parts) == (False, "differs", (True, True, False))
    assert "1 of 40 elements of y" in done.detail


def test_a_run_that_lacks_units_decides_nothing(tmp_path: Path) -> None:
    mine, others = written(tmp_path, "a", honest(), [0, 90]), written(tmp_path, "b", honest(), [0, 33, 80])
    with pytest.raises(Malformed, match="lacks"):
        verify(task(tmp_path, mine, others))


@pytest.mark.parametrize(
    ("mine", "other", "same"),
    [
        ([1.0, np.nan], [1.0, np.nan], True),
        ([1.0, np.nan], [np.nan, 1.0], False),
        ([1.0, np.inf], [1.0, -np.inf], False),
        ([1.0, 2.0], [1.005, 2.005], True),
        ([1.0, 2.0], [1.02, 2.0], False),
    ],
)
def test_runs_may_differ_by_what_the_kernel_says(mine: list[float], other: list[float], same: bool) -> None:
    class Loose(type(get("orbit"))):  # type: ignore[misc]
        spec = KernelSpec(
            name="loose",
            version=1,
            title="",
            doc="",
            inputs=(),
            outputs=(ArraySpec(name="y", dims=("n",), dtypes=("float64",), doc=""),),
            backends=("cpu",),
            verifier=False,
            relative=0.01,
        )

    assert Loose().compare({"y": np.array(mine)}, {"y": np.array(other)}).accepted is same


def test_large_whole_numbers_are_compared_exactly() -> None:
    a, b = np.array([2**60]), np.array([2**60 + 1])
    assert not get("orbit").compare({"y": a}, {"y": b}).accepted
    assert get("orbit").compare({"y": a}, {"y": a.copy()}).accepted
