# SPDX-License-Identifier: Apache-2.0
"""How fast this machine runs each kernel: measured by itself, in a worker, on an honest example; then remembered."""

import logging
import shutil
import tempfile
from contextlib import suppress
from functools import partial
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
from qubix_protocol.messages import KernelRate

log = logging.getLogger("qubix_node")
ENOUGH_MS: Final = 60.0
"""A run this long needs no larger example."""
_REPEATS: Final = 3
"""Of the largest example: the machine may just have been busy with something else."""
_SCALE_FIRST: Final = 256
_SCALE_MAX: Final = 2048
_MEASURE_S: Final = 60.0
_BACKEND: Final = "cpu"


class Remembered(msgspec.Struct, frozen=True):
    """`machine` is what the figures hold for: another one is measured anew."""

    machine: str
    rates: tuple[KernelRate, ...]


async def measured(workers: Workers, folder: Path) -> tuple[KernelRate, ...]:
    """From `folder` when they were measured on this very machine, else measured now: a moment for each kernel."""
    path, machine = folder / "rates.json", _fingerprint(workers.threads)
    known = _load(path)
    if known is not None and known.machine == machine:
        return known.rates
    rates = []
    for name, (_, backends) in catalogue.kernels().items():
        if _BACKEND in backends:
            rates += await _try_to_measure(workers, folder, name)
    data = msgspec.json.format(msgspec.json.encode(Remembered(machine, tuple(rates))))
    await trio.to_thread.run_sync(files.write_atomically, path, data)
    return tuple(rates)


async def _try_to_measure(workers: Workers, folder: Path, name: str) -> list[KernelRate]:
    """Nothing for a kernel that does not run here: then it is not offered."""
    try:
        with trio.fail_after(_MEASURE_S):
            rate = await _measure(workers, folder, name)
    except (WorkerLost, trio.TooSlowError) as error:
        log.warning("rates.not_measured", extra={"kernel": name, "reason": str(error) or type(error).__name__})
        return []
    log.info("rates.measured", extra={"kernel": name, "gflops": round(rate.flops_per_s / 1e9, 2)})
    return [rate]


async def _measure(workers: Workers, folder: Path, name: str) -> KernelRate:
    """The best of larger and larger examples, each in a fresh worker, as jobs are: what a worker needs to get going is
    part of the figure.

    Both figures were reached, by different examples: large ones compute more for each byte, small ones move more.
    """
    found: list[KernelRate] = []
    scale, repeats = _SCALE_FIRST, _REPEATS
    while repeats:
        rate, run_ms = await _run_example(workers, folder, name, scale)
        found.append(rate)
        if run_ms >= ENOUGH_MS or scale >= _SCALE_MAX:
            repeats -= 1
        else:
            scale *= 2
    return KernelRate(
        kernel=name,
        backend=_BACKEND,
        flops_per_s=max(rate.flops_per_s for rate in found),
        bytes_per_s=max(rate.bytes_per_s for rate in found),
    )


async def _run_example(workers: Workers, folder: Path, name: str, scale: int) -> tuple[KernelRate, float]:
    """One example as one chunk: its rate and its time."""
    scratch = Path(await trio.to_thread.run_sync(partial(tempfile.mkdtemp, prefix="measure.", dir=folder)))
    try:
        task, metas = await trio.to_thread.run_sync(_write_example, name, scale, scratch)
        async with workers.run(task, device_id="", scratch=scratch) as run:
            event = await run.next()
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(partial(shutil.rmtree, scratch, ignore_errors=True))
    if not isinstance(event, ChunkDone) or (event.start, event.stop) != task.ranges[0]:
        raise WorkerLost(f"the example did not run: {getattr(event, 'detail', 'no answer')}")
    cost = get(name).cost(metas, task.params, event.stop)
    run_s = max(event.run_ms, 1e-3) / 1000
    rate = KernelRate(
        kernel=name, backend=_BACKEND, flops_per_s=cost.flops / run_s, bytes_per_s=cost.bytes_moved / run_s
    )
    return rate, event.run_ms


def _write_example(name: str, scale: int, scratch: Path) -> tuple[RunTask, dict[str, ArrayMeta]]:
    kernel = get(name)
    arrays, params = kernel.example(np.random.default_rng(scale), scale)
    metas = metas_of(arrays)
    paths = {key: scratch / f"{key}.npy" for key in arrays}
    for key, array in arrays.items():
        _write_npy(paths[key], array)
    units = kernel.units(metas, params)
    task = RunTask(
        kernel=name,
        backend=_BACKEND,
        params=params,
        inputs={key: str(path) for key, path in paths.items()},
        ranges=((0, units),),
        chunk_units=units,
        out_dir=str(scratch),
    )
    return task, metas


def _write_npy(path: Path, array: Array) -> None:
    """Without a second copy in memory."""
    with path.open("wb") as file:
        file.write(npy_prefix(ArrayMeta.of(array)))
        file.write(np.ascontiguousarray(array).data)


def _load(path: Path) -> Remembered | None:
    """None when there is nothing usable: measuring again is always right."""
    with suppress(FileNotFoundError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=Remembered)
    return None


def _fingerprint(threads: int) -> str:
    known = [cpu.model(), f"{cpu.cores()} cores", f"{threads} threads", f"numpy {np.__version__}"]
    known += [f"{name} {version}" for name, (version, _) in sorted(catalogue.kernels().items())]
    return ", ".join(known)
