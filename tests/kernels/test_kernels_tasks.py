# SPDX-License-Identifier: Apache-2.0
"""What a worker does with its task: chunks that cover it and pace themselves, verdicts part by part, told failures."""

import hashlib
import socket
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_kernels import tasks
from qubix_kernels.tasks import ChunkDone, Event, Frame, Part, RunDone, TaskFailed, VerifyDone
from qubix_protocol.arrays import to_npy, unpack_arrays
from qubix_protocol.errors import Malformed
from qubix_protocol.units import CHUNKS_MAX
from tests.kernels.worker_world import Product, hear_all, say


@pytest.fixture
def product(tmp_path: Path) -> Product:
    return Product(tmp_path, rows=50)


def served(frame: Frame | bytes) -> list[Event]:
    """As a worker answers it, in this process."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            if isinstance(frame, bytes):
                ours.sendall(len(frame).to_bytes(4, "big") + frame)
            else:
                say(ours, frame)
            tasks.serve(theirs)
        return hear_all(ours)


def only(events: list[Event]) -> Event:
    assert len(events) == 1
    return events[0]


def verdict(task: Frame) -> VerifyDone:
    event = only(served(task))
    assert isinstance(event, VerifyDone), event
    return event


# Running ------------------------------------------------------------------------------------------------------------


def test_chunks_cover_the_task_and_their_files_are_what_is_announced(product: Product) -> None:
    *chunks, done = served(product.run(chunk_units=8))
    assert isinstance(done, RunDone)
    rows = []
    for index, chunk in enumerate(chunks):
        assert isinstance(chunk, ChunkDone)
        assert (chunk.index, chunk.start) == (index, sum(map(len, rows)))
        data = Path(chunk.path).read_bytes()
        assert (len(data), hashlib.sha256(data).digest()) == (chunk.size_bytes, chunk.digest)
        rows.append(unpack_arrays(data)["c"])
    np.testing.assert_allclose(np.concatenate(rows), product.answer, rtol=1e-4, atol=1e-5)


def test_only_the_ranges_asked_for_are_run_each_ending_in_a_partial_chunk(product: Product) -> None:
    events = served(product.run((30, 41), (3, 8), chunk_units=4, target_s=1e-9))
    spans = [(e.start, e.stop) for e in events if isinstance(e, ChunkDone)]
    assert [row for span in spans for row in range(*span)] == [*range(30, 41), *range(3, 8)]
    assert spans[0] == (30, 34)
    assert spans[-1][1] == 8


RANGES = st.lists(st.integers(1, 3000), min_size=1, max_size=60)
TIMES = st.lists(st.floats(0, 1e4), min_size=1, max_size=50)


@given(RANGES, st.integers(0, 10_000), TIMES, st.floats(1e-9, 100))
def test_pacing_never_makes_too_many_chunks_and_never_leaves_a_range(
    sizes: list[int], chunk_units: int, times: list[float], target_s: float
) -> None:
    ranges = tuple((10_000 * i, 10_000 * i + size) for i, size in enumerate(sizes))
    spans = paced(ranges, chunk_units, times, target_s)
    assert len(spans) <= CHUNKS_MAX
    assert _joined(spans) == list(ranges)


@pytest.mark.parametrize(("count", "size"), [(CHUNKS_MAX, 1), (CHUNKS_MAX, 3), (CHUNKS_MAX - 1, 5), (2000, 7)])
def test_as_many_ranges_as_chunks_still_fit(count: int, size: int) -> None:
    ranges = tuple((10 * i, 10 * i + size) for i in range(count))
    spans = paced(ranges, 1, [1e4], 1e-9)
    assert len(spans) <= CHUNKS_MAX
    assert _joined(spans) == list(ranges)


def test_chunks_grow_towards_the_target_and_shrink_back() -> None:
    spans = paced(((0, 4000),), 1, [1.0], 0.3)
    assert [stop - start for start, stop in spans[:5]] == [1, 4, 16, 64, 256]
    fast_then_slow = paced(((0, 4000),), 100, [100.0, 10_000.0, 1000.0], 1.0)
    assert [stop - start for start, stop in fast_then_slow[:3]] == [100, 400, 40]


def paced(
    ranges: tuple[tuple[int, int], ...], chunk_units: int, times: list[float], target_s: float
) -> list[tuple[int, int]]:
    """The spans of a run whose chunks take these milliseconds, round and round."""
    task = tasks.RunTask(
        kernel="",
        backend="",
        params={},
        inputs={},
        ranges=ranges,
        chunk_units=chunk_units,
        target_s=target_s,
        out_dir="",
    )
    spans = []
    for index, start, stop, done in tasks._chunks(task):
        assert index == len(spans)
        spans.append((start, stop))
        done(times[index % len(times)])
    return spans


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, stop in spans:
        assert start < stop
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return found


# Checking -----------------------------------------------------------------------------------------------------------


def test_honest_parts_are_accepted_whatever_their_order(product: Product) -> None:
    done = verdict(product.verify(product.part(40, 50), product.part(0, 20), product.part(20, 40)))
    assert (done.accepted, done.reason, done.parts) == (True, "ok", (True, True, True))
    assert done.check_ms > 0


def test_one_bad_part_among_good_ones_is_told_apart(product: Product) -> None:
    bad = product.answer[10:20].copy()
    bad[3, 4] += 1
    parts = (product.part(20, 30), product.part(10, 20, bad), product.part(0, 10), product.part(45, 50))
    done = verdict(product.verify(*parts))
    assert (done.accepted, done.reason, done.parts) == (False, "residual", (True, False, True, True))


@pytest.mark.parametrize("content", [b"", b"\x00", b"not MessagePack", b"\x81\xa1c\xc7\x01\x01x"])
def test_a_part_that_cannot_be_read_is_the_providers_fault_and_no_others(product: Product, content: bytes) -> None:
    spoiled = product.folder / "spoiled.bin"
    spoiled.write_bytes(content)
    parts = (product.part(0, 10), Part(start=10, stop=20, path=str(spoiled)), product.part(20, 30))
    done = verdict(product.verify(*parts))
    assert (done.accepted, done.reason, done.parts) == (False, "shape", (True, False, True))


def test_a_part_of_the_wrong_size_does_not_shift_its_neighbours(product: Product) -> None:
    short, long = product.answer[0:9], product.answer[9:20]
    done = verdict(product.verify(product.part(0, 10, short), product.part(10, 20, long), product.part(20, 30)))
    assert (done.accepted, done.reason, done.parts) == (False, "shape", (False, False, True))


# What cannot be carried out -----------------------------------------------------------------------------------------


def failure(frame: Frame | bytes) -> str:
    event = only(served(frame))
    assert isinstance(event, TaskFailed), event
    return event.code


def test_a_file_that_is_missing_is_nobodys_verdict(product: Product) -> None:
    absent = str(product.folder / "absent")
    assert failure(product.verify(Part(start=0, stop=10, path=absent))) == "kernel_error"
    assert failure(product.verify(product.part(0, 10), inputs=product.inputs | {"b": absent})) == "kernel_error"
    assert failure(product.run(inputs=product.inputs | {"a": absent})) == "kernel_error"


def test_an_output_folder_that_is_missing_is_told(product: Product) -> None:
    task = msgspec.structs.replace(product.run(), out_dir=str(product.folder / "absent"))
    assert failure(task) == "kernel_error"


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"garbage" * 20])
def test_an_input_that_is_no_array_is_bad_input(product: Product, content: bytes) -> None:
    Path(product.inputs["a"]).write_bytes(content)
    assert failure(product.run()) == "bad_input"
    assert failure(product.verify(product.part(0, 10))) == "bad_input"


def test_numbers_that_the_kernel_refuses_are_bad_input(tmp_path: Path) -> None:
    product = Product(tmp_path, rows=4)
    Path(product.inputs["a"]).write_bytes(to_npy(np.full((4, 24), np.nan, np.float32)))
    assert failure(product.run()) == "bad_input"


def test_a_kernel_or_back_end_that_is_not_there_is_told(product: Product) -> None:
    assert failure(product.run(kernel="conjuring")) == "bad_input"
    assert failure(product.verify(product.part(0, 10), kernel="conjuring")) == "bad_input"
    assert failure(product.run(backend="abacus")) == "kernel_error"


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x81\xa1t\xa5dance", msgspec.msgpack.encode({"t": "run"})])
def test_what_is_no_task_is_refused(body: bytes) -> None:
    assert failure(body) == "bad_input"


def test_a_check_of_nothing_is_refused(product: Product) -> None:
    assert failure(product.verify()) == "bad_input"


def test_frames_and_events_are_bounded() -> None:
    with pytest.raises(Malformed, match="over the limit"):
        tasks.frame_length((tasks.FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
    for body in (b"", b"\xc1", b"\x80", msgspec.msgpack.encode({"t": "chunk", "index": "x"})):
        with pytest.raises(Malformed):
            tasks.decode_event(body)
