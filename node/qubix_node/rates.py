# SPDX-License-Identifier: Apache-2.0
"""How fast each device runs each kernel: measured by itself, in a worker, on an honest example; then remembered.

A kernel that does not run on a device has no rate there, is not offered there, and is tried again at the next start.
"""

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import trio

from qubix_kernels import get
from qubix_kernels.kernel import metas_of
from qubix_kernels.tasks import ChunkDone, RunTask
from qubix_node import catalogue, files
from qubix_node.errors import WorkerLost
from qubix_node.gpu import cpu
from qubix_node.jobs.worker import Workers
from qubix_protocol.arrays import Array, ArrayMeta, npy_prefix
from qubix_protocol.messages import Device, KernelRate
from qubix_protocol.states import DeviceKind

log = logging.getLogger("qubix_node")
ENOUGH_MS: Final = 60.0
"""A run this long needs no larger example."""
_KERNEL_S_MAX: Final = 60.0
_SHORTEST_S: Final = 1e-6
_SIZES_APART: Final = 4.0
"""Examples tell an overhead when one has so many times the operations of the other."""
_OVERHEAD_S_MAX: Final = 10.0
_CLEAR_TIMES: Final = 1.5
"""A rate is read off examples that take so many times the overhead."""
SCRATCH: Final = "measure."
"""How folders of examples begin, among those of attempts."""
_CARDS_AT_ONCE: Final = 4
_OTHERS_MAX: Final = 256
_NO_TARGET_S: Final = 3600.0
"""Every example is one chunk, however long it takes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one back end is measured: examples of `scale_first`, then larger by `growth`, up to `scale_max`.

    Each `worker_runs` times in one worker, of which the first `warm_up` do not count; `repeats` workers of the largest
    example, since the machine may just have been busy. After `enough_s` for a kernel nothing more is begun, and after
    `device_s` for a device no further kernel.
    """

    scale_first: int
    scale_max: int
    growth: int
    repeats: int
    worker_runs: int
    warm_up: int
    enough_s: float
    device_s: float


PLANS: Final[Mapping[str, Plan]] = {
    "cpu": Plan(256, 2048, growth=4, repeats=3, worker_runs=1, warm_up=0, enough_s=3.0, device_s=20.0),
    # A worker's first run on a card makes the context and compiles the kernel: seconds that nobody pays for (trust B4).
    "cuda": Plan(2048, 4096, growth=2, repeats=1, worker_runs=4, warm_up=1, enough_s=8.0, device_s=60.0),
    # From a processor's graphics unit to a large card. A first run also finds out how much a dispatch may be.
    "webgpu": Plan(256, 4096, growth=2, repeats=1, worker_runs=3, warm_up=1, enough_s=8.0, device_s=60.0),
}
"""A CPU's runs are each in a fresh worker, as jobs are: what it needs to get going is part of the figure."""


Heard = Callable[[str, tuple[KernelRate, ...], bool], None]
"""Told of a device's id, its rates so far, and whether they are all."""


class Known(msgspec.Struct, frozen=True):
    """`measured_on` is what the figure holds for: anything else is measured anew."""

    device_id: str
    measured_on: str
    rate: KernelRate


@dataclass(frozen=True, slots=True)
class _Subject:
    """What one figure is about."""

    device: Device
    kernel: str
    backend: str
    plan: Plan
    measured_on: str

    @property
    def key(self) -> tuple[str, str]:
        return self.device.device_id, self.measured_on


async def measured(
    workers: Workers,
    folder: Path,
    devices: Sequence[Device],
    plans: Mapping[str, Plan] = PLANS,
    heard: Heard | None = None,
) -> dict[str, tuple[KernelRate, ...]]:
    """Each device's rates, from `folder` when they were measured on this very device, else measured now: a moment for
    each kernel. Processors come first and alone; cards side by side. `heard` is told of each step."""
    await trio.to_thread.run_sync(_tidy, workers.folder)
    subjects = {device.device_id: _subjects(device, workers.threads, plans) for device in devices}
    book = _Book(folder / "rates.json", subjects, heard or _nobody)
    await _measure_missing(workers, subjects, book)
    return {device_id: book.rates(device_id) for device_id in subjects}


class _Book:
    """What is known, and its file."""

    def __init__(self, path: Path, subjects: Mapping[str, Sequence[_Subject]], heard: Heard) -> None:
        self._path, self._subjects, self._heard = path, subjects, heard
        self._writing = trio.Lock()
        self.known = {(one.device_id, one.measured_on): one for one in _load(path)}

    def rates(self, device_id: str) -> tuple[KernelRate, ...]:
        return tuple(self.known[one.key].rate for one in self._subjects[device_id] if one.key in self.known)

    def tell(self, device_id: str, *, complete: bool) -> None:
        self._heard(device_id, self.rates(device_id), complete)

    async def enter(self, subject: _Subject, rate: KernelRate) -> None:
        """Kept at once: a node that is stopped in the middle goes on there."""
        self.known[subject.key] = Known(subject.device.device_id, subject.measured_on, rate)
        self.tell(subject.device.device_id, complete=False)
        async with self._writing:
            data = msgspec.json.format(msgspec.json.encode(_worth_keeping(self.known, self._subjects)))
            try:
                await trio.to_thread.run_sync(files.write_atomically, self._path, data)
            except OSError as error:
                log.warning("rates.not_kept", extra={"reason": str(error)})


def _worth_keeping(known: Mapping[tuple[str, str], Known], subjects: Mapping[str, Sequence[_Subject]]) -> list[Known]:
    """What holds for the devices that are here, and the newest of what was measured on others: they may come back."""
    wanted = {one.key for several in subjects.values() for one in several}
    others = [one for key, one in known.items() if key[0] not in subjects]
    return [*others[-_OTHERS_MAX:], *(one for key, one in known.items() if key in wanted)]


def _subjects(device: Device, threads: int, plans: Mapping[str, Plan]) -> list[_Subject]:
    return [
        _Subject(device, name, backend, plans[backend], _measured_on(device, backend, f"{name} {number}", threads))
        for name, (number, backends) in catalogue.kernels().items()
        for backend in backends
        if backend in device.backends and backend in plans
    ]


async def _measure_missing(
    workers: Workers,
    subjects: Mapping[str, Sequence[_Subject]],
    book: _Book,
) -> None:
    at_once = trio.CapacityLimiter(_CARDS_AT_ONCE)

    async def measure(device_id: str) -> None:
        async with at_once:
            await _measure_device(workers, [one for one in subjects[device_id] if one.key not in book.known], book)
        book.tell(device_id, complete=True)

    cpus = [device_id for device_id, several in subjects.items() if several and _is_cpu(several[0])]
    for device_id in cpus:
        await measure(device_id)
    async with trio.open_nursery() as nursery:
        for device_id in subjects.keys() - set(cpus):
            nursery.start_soon(measure, device_id)


def _is_cpu(subject: _Subject) -> bool:
    return subject.device.kind is DeviceKind.CPU


async def _measure_device(workers: Workers, subjects: Sequence[_Subject], book: _Book) -> None:
    began_s = trio.current_time()
    for number, subject in enumerate(subjects):
        if number and trio.current_time() >= began_s + subject.plan.device_s:
            log.warning("rates.no_time_left", extra=_named(subject))
            continue
        rate = await _try_to_measure(workers, subject)
        if rate is not None:
            await book.enter(subject, rate)


async def _try_to_measure(workers: Workers, subject: _Subject) -> KernelRate | None:
    try:
        with trio.fail_after(_KERNEL_S_MAX):
            rate = await _measure(workers, subject)
    except (WorkerLost, trio.TooSlowError, OSError) as error:
        log.warning("rates.not_measured", extra={**_named(subject), "reason": str(error) or type(error).__name__})
        return None
    log.info("rates.measured", extra={**_named(subject), "gflops": round(rate.flops_per_s / 1e9, 2)})
    return rate


def _named(subject: _Subject) -> dict[str, object]:
    return {"kernel": subject.kernel, "backend": subject.backend, "device": subject.device.device_id}


@dataclass(frozen=True, slots=True)
class Example:
    """One that ran, and its time: the best of the runs that count."""

    flops: float
    bytes_moved: float
    run_s: float


async def _measure(workers: Workers, subject: _Subject) -> KernelRate:
    """By larger and larger examples."""
    plan, found, began_s = subject.plan, list[Example](), trio.current_time()
    scale, repeats = plan.scale_first, plan.repeats
    while repeats and (not found or trio.current_time() < began_s + plan.enough_s):
        found.append(await _run_example(workers, subject, scale))
        if found[-1].run_s * 1000 >= ENOUGH_MS or scale >= plan.scale_max:
            repeats -= 1
        else:
            scale = min(plan.scale_max, scale * plan.growth)
    return rate_of(subject.kernel, subject.backend, found)


def rate_of(kernel: str, backend: str, found: Sequence[Example]) -> KernelRate:
    """What every run takes besides is told from the rest by examples of different sizes. Both rates were reached beyond
    it, by different examples: large ones compute more for each byte, small ones move more."""
    overhead_s = _overhead_s(found)
    beyond = [(one, max(one.run_s - overhead_s, _SHORTEST_S)) for one in _clear(found, overhead_s)]
    return KernelRate(
        kernel=kernel,
        backend=backend,
        flops_per_s=max(one.flops / seconds for one, seconds in beyond),
        bytes_per_s=max(one.bytes_moved / seconds for one, seconds in beyond),
        overhead_s=overhead_s,
    )


def _overhead_s(found: Sequence[Example]) -> float:
    """On the line through the largest example and a small one, where there is no work; the least of all small ones,
    since the machine may have been busy with any. 0 where the sizes are too alike to tell."""
    largest = min(found, key=lambda one: (-one.flops, one.run_s))
    guesses = []
    for one in found:
        if one.flops < largest.flops and one.flops * _SIZES_APART <= largest.flops:
            slope = max(0.0, largest.run_s - one.run_s) / (largest.flops - one.flops)
            guesses.append(max(0.0, one.run_s - one.flops * slope))
    return min([*guesses, _OVERHEAD_S_MAX]) if guesses else 0.0


def _clear(found: Sequence[Example], overhead_s: float) -> list[Example]:
    """Those that took long enough beside the overhead for a rate to be read off them."""
    clear = [one for one in found if one.run_s >= _CLEAR_TIMES * overhead_s]
    return clear or [max(found, key=lambda one: one.run_s)]


async def _run_example(workers: Workers, subject: _Subject, scale: int) -> Example:
    """One example in one worker."""
    scratch = Path(await trio.to_thread.run_sync(partial(tempfile.mkdtemp, prefix=SCRATCH, dir=workers.folder)))
    try:
        write = partial(write_example, subject.kernel, subject.backend, scale, scratch, runs=subject.plan.worker_runs)
        task, metas = await trio.to_thread.run_sync(write)
        run_ms = min((await _run_times(workers, subject, task, scratch))[subject.plan.warm_up :])
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(partial(shutil.rmtree, scratch, ignore_errors=True))
    cost = get(subject.kernel).cost(metas, task.params, task.chunk_units)
    return Example(cost.flops, cost.bytes_moved, max(run_ms / 1000, _SHORTEST_S))


async def _run_times(workers: Workers, subject: _Subject, task: RunTask, scratch: Path) -> list[float]:
    """Milliseconds of each run of the task's one chunk. Raises `WorkerLost` when it does something else."""
    times: list[float] = []
    async with workers.run(task, device_id=subject.device.device_id, scratch=scratch) as run:
        for wanted in task.ranges:
            event = await run.next()
            if not isinstance(event, ChunkDone) or (event.start, event.stop) != wanted:
                raise WorkerLost(f"the example did not run: {getattr(event, 'detail', '') or await run.fate()}")
            times.append(event.run_ms)
            with suppress(OSError):
                await trio.to_thread.run_sync((Path(task.out_dir) / Path(event.path).name).unlink)
    return times


def write_example(
    name: str, backend: str, scale: int, scratch: Path, *, runs: int
) -> tuple[RunTask, dict[str, ArrayMeta]]:
    """A seeded example in `scratch`, as a task that runs it so many times in one worker. Blocks on the disk."""
    kernel = get(name)
    arrays, params = kernel.example(np.random.default_rng(scale), scale)
    metas = metas_of(arrays)
    paths = {key: scratch / f"{key}.npy" for key in arrays}
    for key, array in arrays.items():
        _write_npy(paths[key], array)
    units = kernel.units(metas, params)
    (scratch / "out").mkdir()
    task = RunTask(
        kernel=name,
        backend=backend,
        params=params,
        inputs={key: str(path) for key, path in paths.items()},
        ranges=((0, units),) * runs,
        chunk_units=units,
        target_s=_NO_TARGET_S,
        out_dir=str(scratch / "out"),
    )
    return task, metas


def _write_npy(path: Path, array: Array) -> None:
    """Without a second copy in memory."""
    with path.open("wb") as file:
        file.write(npy_prefix(ArrayMeta.of(array)))
        file.write(np.ascontiguousarray(array).data)


def _tidy(folder: Path) -> None:
    """What was left by a node that was killed while it measured."""
    for left in folder.glob(f"{SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)


def _nobody(device_id: str, rates: tuple[KernelRate, ...], complete: bool) -> None:
    return


def _load(path: Path) -> list[Known]:
    """Nothing when there is nothing usable: measuring again is always right."""
    with suppress(FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.json.decode(path.read_bytes(), type=list[Known])
    return []


def _measured_on(device: Device, backend: str, kernel: str, threads: int) -> str:
    """Everything that may change the figure: the kernel's version, the machine or the card, and what compiles."""
    if backend == "cpu":
        machine = [cpu.model(), f"{cpu.cores()} cores", f"{threads} threads", *_versions("numpy", "numba")]
    else:
        machine = [device.model, f"driver {device.driver}", *_versions(*_COMPILERS[backend])]
    return ", ".join([kernel, backend, *machine])


_COMPILERS: Final = {"cuda": ("numba", "numba-cuda", "cuda-toolkit"), "webgpu": ("wgpu",)}


def _versions(*packages: str) -> list[str]:
    found = []
    for package in packages:
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return found
