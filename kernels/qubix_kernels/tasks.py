# SPDX-License-Identifier: Apache-2.0
"""What a forked worker does: run a job's units, or check what somebody else ran. Speaks frames on one socket.

A frame is a 4-byte big-endian length and the MessagePack of one struct below. The parent sends one task, the worker
answers with events and closes. Data stays in files: inputs are `.npy`, outputs are `arrays.pack_arrays`.
"""

import hashlib
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from qubix_kernels import get
from qubix_kernels.frames import DETAIL_MAX, Digest, Frame, Milliseconds, Size, Word, Words
from qubix_kernels.kernel import BadInput, NotInstalled, UnknownKernel, metas_of
from qubix_kernels.onnx.frames import DescribeDone, DescribeTask
from qubix_kernels.trial import task as trial
from qubix_kernels.trial.frames import TrialDone, TrialFull, TrialKey, TrialRoom, TrialSeed, TrialTask
from qubix_protocol.arrays import Array, from_npy, pack_arrays, unpack_arrays
from qubix_protocol.errors import Malformed, ProtocolError
from qubix_protocol.messages import Params
from qubix_protocol.units import CHUNKS_MAX

FRAME_BYTES_MAX: Final = 4 * 1024 * 1024
W = TypeVar("W", TrialSeed, TrialKey)
NOT_INSTALLED: Final = "not_installed"
_LENGTH: Final = struct.Struct(">I")


class RunTask(Frame, frozen=True, kw_only=True, tag="run"):
    """Run these unit ranges in order. `chunk_units` sizes the first chunk; later ones aim at `target_s` of run time."""

    kernel: str
    backend: str
    params: Params
    inputs: dict[str, str]
    ranges: tuple[tuple[int, int], ...]
    chunk_units: int
    target_s: float = 1.0
    out_dir: str


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Output of units [start, stop), in the file `path`."""

    start: int
    stop: int
    path: str


class VerifyTask(Frame, frozen=True, kw_only=True, tag="verify"):
    """Check these parts. `seed` is drawn by the parent after the parts' digests were committed (trust C1).

    `others` are somebody else's outputs of the same units, in parts of their own: a kernel without a verifier is judged
    by comparing with them.
    """

    kernel: str
    params: Params
    inputs: dict[str, str]
    parts: Annotated[tuple[Part, ...], Meta(min_length=1)]
    seed: Annotated[bytes, Meta(min_length=32, max_length=32)]
    others: tuple[Part, ...] = ()


class WipeTask(Frame, frozen=True, kw_only=True, tag="wipe"):
    """Overwrite the memory of the card that this worker sees. Ours alone: no job's word leads here."""


class WipeDone(Frame, frozen=True, kw_only=True, tag="wipe_done"):
    """Bytes that were free, and that are zeros now."""

    free_bytes: int
    cleared_bytes: int


class ChunkDone(Frame, frozen=True, kw_only=True, tag="chunk"):
    """`digest` is the SHA-256 of the file; `run_ms` is the kernel's own time, without writing the file."""

    index: Size
    start: Size
    stop: Size
    path: Words
    size_bytes: Size
    digest: Digest
    run_ms: Milliseconds


class RunDone(Frame, frozen=True, kw_only=True, tag="run_done"):
    run_ms: Milliseconds


class VerifyDone(Frame, frozen=True, kw_only=True, tag="verify_done"):
    """`parts` holds one verdict for each part of the task, in order."""

    accepted: bool
    reason: Word
    detail: Words
    parts: Annotated[tuple[bool, ...], Meta(max_length=CHUNKS_MAX)]
    check_ms: Milliseconds


class TaskFailed(Frame, frozen=True, kw_only=True, tag="failed"):
    """The task could not be carried out. `code`: bad_input, kernel_error, out_of_memory, not_installed."""

    code: Word
    detail: Words


Task = RunTask | VerifyTask | WipeTask | TrialTask | DescribeTask
Event = ChunkDone | RunDone | VerifyDone | WipeDone | TrialRoom | TrialFull | TrialDone | DescribeDone | TaskFailed
_event_decoder: Final = msgspec.msgpack.Decoder(Event)
_task_decoder: Final = msgspec.msgpack.Decoder(Task)


def encode_frame(frame: Frame) -> bytes:
    body = msgspec.msgpack.encode(frame)
    return _LENGTH.pack(len(body)) + body


def frame_length(head: bytes) -> int:
    """Length of the body after a 4-byte head; `Malformed` over the limit."""
    (length,) = _LENGTH.unpack(head)
    if length > FRAME_BYTES_MAX:
        raise Malformed(f"a frame of {length} bytes is over the limit of {FRAME_BYTES_MAX}")
    return int(length)


def decode_event(body: bytes) -> Event:
    """A worker is not trusted more than its bytes: `Malformed` when they are not an event."""
    try:
        event: Event = _event_decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # text that is no UTF-8 is a ValueError
        raise Malformed(f"not an event of a worker: {error}") from error
    return event


def _task_of(body: bytes) -> Task:
    try:
        task: Task = _task_decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # text that is no UTF-8 is a ValueError
        raise Malformed(f"not a task: {error}") from error
    return task


def serve(sock: socket.socket) -> None:
    """The worker's whole life: one task in, events out. Errors of the task become `TaskFailed`."""
    try:
        task = _task_of(_receive(sock))
        for event in _carry_out(task, lambda kind: _word_of(_receive(sock), kind)):
            sock.sendall(encode_frame(event))
    except MemoryError:
        sock.sendall(
            encode_frame(TaskFailed(code="out_of_memory", detail="the task needs more memory than it may use"))
        )
    except (ProtocolError, BadInput, UnknownKernel) as error:
        sock.sendall(encode_frame(TaskFailed(code="bad_input", detail=str(error)[:1000])))
    except NotInstalled as error:
        sock.sendall(encode_frame(TaskFailed(code=NOT_INSTALLED, detail=str(error)[:1000])))
    except Exception as error:  # noqa: BLE001  the worker's last word: whatever it was, the parent must hear of it
        detail = f"{type(error).__name__}: {error}"[:1000]
        sock.sendall(encode_frame(TaskFailed(code="kernel_error", detail=detail)))


def _word_of(body: bytes, kind: type[W]) -> W:
    """What the parent says later in the task."""
    try:
        word: W = msgspec.msgpack.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Malformed(f"not what was waited for: {error}") from error
    return word


def _carry_out(task: Task, hear: Callable[..., Any]) -> Iterator[Event]:
    if isinstance(task, RunTask):
        yield from run(task)
    elif isinstance(task, VerifyTask):
        yield verify(task)
    elif isinstance(task, TrialTask):
        yield from trial.run(task, hear)
    elif isinstance(task, DescribeTask):
        yield describe(task)
    else:
        yield wipe()


def wipe() -> WipeDone:
    """Raises what the device says, or RuntimeError when too much of it stayed out of reach."""
    from qubix_kernels.box.cuda import memory_of_this_device
    from qubix_kernels.box.wipe import overwrite

    done = overwrite(memory_of_this_device())
    if not done.whole:
        raise RuntimeError(f"only {done.cleared_bytes} of {done.free_bytes} free bytes could be overwritten")
    return WipeDone(free_bytes=done.free_bytes, cleared_bytes=done.cleared_bytes)


def describe(task: DescribeTask) -> DescribeDone:
    """Loads the libraries that read models, which nothing but a worker does."""
    from qubix_kernels.onnx import task as onnx

    return onnx.run(task, from_npy(_map(task.model)).tobytes(), _open_inputs(task.inputs))


def run(task: RunTask) -> Iterator[ChunkDone | RunDone]:
    """Each chunk is written and announced before the next one starts."""
    kernel = get(task.kernel)
    inputs = _open_inputs(task.inputs)
    kernel.warm_up(task.backend, metas_of(inputs), task.params)
    total_ms = 0.0
    for index, start, stop, done in _chunks(task):
        part_inputs, part_params = kernel.subproblem(inputs, task.params, start, stop)
        began = time.perf_counter()
        outputs = kernel.run(task.backend, part_inputs, part_params)
        run_ms = (time.perf_counter() - began) * 1000
        total_ms += run_ms
        done(run_ms)
        yield _write_chunk(Path(task.out_dir), index, start, stop, outputs, run_ms)
    yield RunDone(run_ms=total_ms)


def verify(task: VerifyTask) -> VerifyDone:
    """Contiguous parts are checked as one, which is cheapest; only when that fails is each part judged by itself, to
    find the bad one. A group that failed is never accepted whole: luck of the second draw would have passed it."""
    began = time.perf_counter()
    kernel = get(task.kernel)
    inputs = _open_inputs(task.inputs)
    rng = np.random.default_rng(np.frombuffer(task.seed, dtype=np.uint32))
    accepted = [False] * len(task.parts)
    reason, detail = "ok", ""
    for group in _contiguous(task.parts):
        verdicts = [_check(kernel, inputs, task, group, rng)]
        if not verdicts[0].accepted and len(group) > 1:
            singly = [_check(kernel, inputs, task, [i], rng) for i in group]
            verdicts = verdicts if all(verdict.accepted for verdict in singly) else singly
        for i, verdict in zip(group, verdicts * (len(group) // len(verdicts)), strict=True):
            accepted[i] = bool(verdict.accepted)
            if not verdict.accepted and reason == "ok":
                reason, detail = verdict.reason, verdict.detail
    check_ms = (time.perf_counter() - began) * 1000
    detail = detail[:DETAIL_MAX]
    return VerifyDone(accepted=all(accepted), reason=reason, detail=detail, parts=tuple(accepted), check_ms=check_ms)


def _check(
    kernel: Any, inputs: Mapping[str, Array], task: VerifyTask, group: Sequence[int], rng: np.random.Generator
) -> Any:
    parts = [task.parts[i] for i in group]
    part_inputs, params = kernel.subproblem(inputs, task.params, parts[0].start, parts[-1].stop)
    try:
        outputs = kernel.join([_read(kernel, inputs, task.params, part) for part in parts])
    except (ProtocolError, ValueError, TypeError, KeyError) as error:
        return _Unreadable(detail=f"the output cannot be read: {error}"[:500])
    verdict = kernel.verify(part_inputs, params, outputs, rng)
    if verdict.accepted and task.others and not kernel.spec.verifier:
        return kernel.compare(outputs, _others(kernel, inputs, task, parts[0].start, parts[-1].stop))
    return verdict


def _others(kernel: Any, inputs: Mapping[str, Array], task: VerifyTask, start: int, stop: int) -> dict[str, Array]:
    """Units [start, stop) of the other run. Raises what says that it does not have them: nothing was compared then."""
    parts = sorted((part for part in task.others if start < part.stop and part.start < stop), key=lambda p: p.start)
    edges = [part.stop for part in parts]
    if not parts or parts[0].start > start or edges[-1] < stop or [p.start for p in parts[1:]] != edges[:-1]:
        raise Malformed(f"the other run lacks some of the units {start} to {stop}")
    joined = kernel.join([_read(kernel, inputs, task.params, part) for part in parts])
    first = parts[0].start
    return {name: array[start - first : stop - first] for name, array in joined.items()}


def _read(kernel: Any, inputs: Mapping[str, Array], params: Params, part: Part) -> dict[str, Array]:
    """One part, of the form that its own units must have: joined, int8 rows would pass for float32 ones, and the rows
    that one part has too many for those that another lacks."""
    outputs = unpack_arrays(_map(part.path))
    part_inputs, part_params = kernel.subproblem(inputs, params, part.start, part.stop)
    for problem in kernel.check_outputs(metas_of(part_inputs), part_params, outputs):
        raise Malformed(f"{problem.field} {problem.problem}: {problem.remedy}")
    return outputs


class _Unreadable(msgspec.Struct, frozen=True):
    detail: str
    accepted: bool = False
    reason: str = "shape"


def _contiguous(parts: Sequence[Part]) -> list[list[int]]:
    """Indices of `parts`, in unit order, grouped where one part begins where the last one ended."""
    groups: list[list[int]] = []
    for i in sorted(range(len(parts)), key=lambda i: parts[i].start):
        if groups and parts[groups[-1][-1]].stop == parts[i].start:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


class _Pace:
    """Sizes chunks so that each takes about `target_s`, within the number of links that an attempt may have."""

    def __init__(self, task: RunTask) -> None:
        self._target_ms = task.target_s * 1000
        self.units = max(1, task.chunk_units)

    def learn(self, units: int, run_ms: float) -> None:
        ideal = units * self._target_ms / max(run_ms, 0.01)
        self.units = max(1, int(min(ideal, self.units * 4)))


def _chunks(task: RunTask) -> Iterator[tuple[int, int, int, Any]]:
    pace, index = _Pace(task), 0
    left = sum(stop - start for start, stop in task.ranges)
    for number, (start, end) in enumerate(task.ranges):
        while start < end:
            spare = max(1, CHUNKS_MAX - index - (len(task.ranges) - number))
            units = min(max(pace.units, -(-left // spare)), end - start)
            yield index, start, start + units, lambda run_ms, units=units: pace.learn(units, run_ms)
            index, start, left = index + 1, start + units, left - units


def _write_chunk(
    out: Path, index: int, start: int, stop: int, outputs: Mapping[str, Array], run_ms: float
) -> ChunkDone:
    data = pack_arrays(outputs)
    path = out / f"chunk-{index:05d}.bin"
    path.write_bytes(data)
    return ChunkDone(
        index=index,
        start=start,
        stop=stop,
        path=str(path),
        size_bytes=len(data),
        digest=hashlib.sha256(data).digest(),
        run_ms=run_ms,
    )


def _open_inputs(paths: Mapping[str, str]) -> dict[str, Array]:
    return {name: from_npy(_map(path)) for name, path in paths.items()}


def _map(path: str) -> memoryview:
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return memoryview(b"")  # which cannot be mapped
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _receive(sock: socket.socket) -> bytes:
    return _exactly(sock, frame_length(_exactly(sock, _LENGTH.size)))


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = sock.recv(min(size - len(data), 1 << 20))
        if not more:
            raise EOFError("the parent closed the socket")
        data += more
    return bytes(data)
