# SPDX-License-Identifier: Apache-2.0
"""Cheats on the check itself (trust.md C1, C2): what it reads must be what the consumer gets, and no luck may help."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from qubix_kernels import get, tasks
from qubix_protocol.arrays import ARRAY_EXT, Array, pack_arrays, to_npy, unpack_arrays
from qubix_protocol.errors import Malformed

ROWS = 96


class Bench:
    """One job's files in a folder, and their check."""

    def __init__(self, folder: Path, kernel: str, params: dict[str, Any], **inputs: Array) -> None:
        self.folder, self.kernel, self.params, self.inputs = folder, kernel, params, {}
        for name, array in inputs.items():
            path = folder / f"{name}.npy"
            path.write_bytes(to_npy(array))
            self.inputs[name] = str(path)

    def check(self, *parts: tuple[int, int, bytes], seed: int = 0) -> tasks.VerifyDone:
        found = []
        for number, (start, stop, data) in enumerate(parts):
            path = self.folder / f"part-{number}.bin"
            path.write_bytes(data)
            found.append(tasks.Part(start=start, stop=stop, path=str(path)))
        return tasks.verify(
            tasks.VerifyTask(
                kernel=self.kernel,
                params=self.params,
                inputs=self.inputs,
                parts=tuple(found),
                seed=seed.to_bytes(32, "big"),
            )
        )


@pytest.fixture
def whole_numbers(tmp_path: Path) -> tuple[Bench, Array]:
    """A product of small whole numbers: every type that holds them holds it exactly."""
    rng = np.random.default_rng(3)
    a, b = (rng.integers(-1, 2, shape).astype(np.float32) for shape in ((ROWS, 16), (16, 24)))
    return Bench(tmp_path, "matmul", {}, a=a, b=b), a @ b


@pytest.mark.parametrize("dtype", ["int8", "int16", "float16", "float64"])
def test_a_part_of_another_type_does_not_hide_among_right_ones(whole_numbers: tuple[Bench, Array], dtype: str) -> None:
    """Joined with float32 it becomes float32 and right; what is paid for and read are the bytes of the part."""
    bench, c = whole_numbers
    found = bench.check((0, 48, pack_arrays({"c": c[:48]})), (48, ROWS, pack_arrays({"c": c[48:].astype(dtype)})))
    assert (found.parts, found.reason) == ((True, False), "shape")


@pytest.mark.parametrize("cut", [0, 40, 60, ROWS])
def test_each_part_has_the_rows_of_its_own_units(whole_numbers: tuple[Bench, Array], cut: int) -> None:
    bench, c = whole_numbers
    found = bench.check((0, 48, pack_arrays({"c": c[:cut]})), (48, ROWS, pack_arrays({"c": c[cut:]})))
    assert found.parts == (False, False)


def twice(wrong: Array, right: Array) -> bytes:
    """A map with two entries of the same name."""
    one, other = pack_arrays({"c": wrong}), pack_arrays({"c": right})
    return b"\x82" + one[1:] + other[1:]


def test_an_array_that_is_there_twice_is_no_result(whole_numbers: tuple[Bench, Array]) -> None:
    """One reader takes the first, another the last: the check must not pass one and the consumer get the other."""
    bench, c = whole_numbers
    for data in (twice(c * 0, c), twice(c, c * 0), twice(c, c)):
        with pytest.raises(Malformed, match="same name"):
            unpack_arrays(data)
        assert bench.check((0, ROWS, data)).parts == (False,)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xc1",
        msgpack.packb(7),
        msgpack.packb("ab"),
        msgpack.packb(["float32"]),
        msgpack.packb(["float32", "x"]),
        msgpack.packb(["float32", [1.5]]),
        msgpack.packb(["float32", [2**63]]),
        msgpack.packb(["float32", [-1]]),
        msgpack.packb(["float32", [0, 2**33]]),
        msgpack.packb(["object", [1]]),
        msgpack.packb([b"float32", [1]]),
    ],
)
def test_whatever_an_output_is_the_check_ends_with_a_verdict(whole_numbers: tuple[Bench, Array], head: bytes) -> None:
    """A check that breaks blames nobody: a provider must not be able to break it."""
    bench, _ = whole_numbers
    data = msgpack.packb({"c": msgpack.ExtType(ARRAY_EXT, bytes([len(head)]) + head + bytes(16))})
    assert bench.check((0, ROWS, data)).parts == (False,)


def test_a_group_that_failed_is_not_accepted_by_the_luck_of_a_second_draw(tmp_path: Path) -> None:
    """knn checks a sample of queries in full: a cheat that was found once must not get away in a second draw."""
    rng = np.random.default_rng(5)
    queries, data = (rng.standard_normal((1024, 8), dtype=np.float32) for _ in range(2))
    kernel, params = get("knn"), {"k": 3}
    honest = kernel.run("cpu", {"queries": queries, "data": data}, params)
    cheated = _second_best(honest, queries, data)
    bench = Bench(tmp_path, "knn", params, queries=queries, data=data)

    def part(start: int, stop: int) -> tuple[int, int, bytes]:
        return start, stop, pack_arrays({name: array[start:stop] for name, array in cheated.items()})

    found = [bench.check(part(0, 512), part(512, 1024), seed=seed) for seed in range(40)]
    caught = [one for one in found if one.reason == "missed_neighbour"]
    assert caught, "none of the seeds drew a cheated query"
    assert not any(one.accepted for one in caught)
    assert all(one.accepted == all(one.parts) for one in found)


def _second_best(honest: dict[str, Array], queries: Array, data: Array) -> dict[str, Array]:
    """Every 32nd query names the three after the nearest: right distances, in order, and one neighbour missed."""
    cheated = {name: array.copy() for name, array in honest.items()}
    for q in range(0, len(queries), 32):
        apart = ((data.astype(np.float64) - queries[q]) ** 2).sum(axis=1)
        chosen = np.argsort(apart)[1:4]
        cheated["indices"][q], cheated["distances"][q] = chosen, apart[chosen].astype(np.float32)
    return cheated


def _tiny_column(b: Array) -> None:
    b[:, 7] *= np.float32(1e-40)


def _tiny_columns(b: Array) -> None:
    b[:, 7:] *= np.float32(10.0) ** -np.linspace(20, 44, b.shape[1] - 7, dtype=np.float32)


@pytest.mark.parametrize("shrink", [_tiny_column, _tiny_columns])
def test_columns_next_to_zero_hide_nothing_in_the_others(shrink: Callable[[Array], None]) -> None:
    """C2: what underflow may lose in one column of b is no allowance for the rest of the row."""
    rng, kernel = np.random.default_rng(11), get("matmul")
    a, b = (rng.standard_normal((128, 128), dtype=np.float32) for _ in range(2))
    shrink(b)
    c = kernel.run("cpu", {"a": a, "b": b}, {})["c"]

    def accepted(claimed: Array) -> bool:
        return bool(kernel.verify({"a": a, "b": b}, {}, {"c": claimed}, rng).accepted)

    planted, one_column = c.copy(), c.copy()
    planted[3, 5] += np.float32(0.01 * np.sqrt(np.mean(c[:, :7].astype(np.float64) ** 2)))
    one_column[:, 2] = 0
    assert accepted(c)
    assert not accepted(np.zeros_like(c))
    assert not accepted(planted)
    assert not accepted(one_column)


def test_a_tiny_row_of_a_beside_a_tiny_column_of_b_is_checked_too() -> None:
    rng, kernel = np.random.default_rng(12), get("matmul")
    a, b = (rng.standard_normal((128, 128), dtype=np.float32) for _ in range(2))
    a[3] *= np.float32(1e-20)
    b[:, 7] *= np.float32(1e-16)
    c = kernel.run("cpu", {"a": a, "b": b}, {})["c"]
    cheated = c.copy()
    cheated[3] = 0
    assert kernel.verify({"a": a, "b": b}, {}, {"c": c}, rng).accepted
    assert not kernel.verify({"a": a, "b": b}, {}, {"c": cheated}, rng).accepted


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38])
@pytest.mark.parametrize("kernel_name", ["matmul", "knn"])
def test_special_numbers_are_never_a_result(kernel_name: str, value: float) -> None:
    rng, kernel = np.random.default_rng(13), get(kernel_name)
    inputs, params = kernel.example(rng, 96)
    honest = kernel.run("cpu", inputs, params)
    name = "c" if kernel_name == "matmul" else "distances"
    for where in ((5, 3), slice(None)):
        cheated = {key: array.copy() for key, array in honest.items()}
        cheated[name][where] = value
        assert not kernel.verify(inputs, params, cheated, rng).accepted
