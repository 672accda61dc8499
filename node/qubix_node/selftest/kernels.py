# SPDX-License-Identifier: Apache-2.0
"""Each kernel on each back end of the device: run in a worker as a job would be, judged by the kernel's own verifier.

Meanwhile the device is read: its heat is judged under this load.
"""

import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from qubix_kernels import get
from qubix_kernels.tasks import NOT_INSTALLED, ChunkDone, Part, RunTask, TaskFailed, VerifyDone, VerifyTask
from qubix_node import catalogue
from qubix_node import rates as measuring
from qubix_node.clock import wall_ms
from qubix_node.errors import WorkerLost
from qubix_node.jobs.worker import Run
from qubix_node.selftest import rules
from qubix_node.selftest.reading import keep_reading
from qubix_node.selftest.rules import Ran
from qubix_node.selftest.tools import Tools
from qubix_protocol.messages import Sample
from qubix_protocol.selftest import Check
from qubix_protocol.states import DeviceKind

_KERNEL_S: Final = 120.0
_READING_S: Final = 12.0
"""A card is read every few seconds: one reading under this load is waited for."""
_LOOK_S: Final = 0.25


async def look(tools: Tools) -> list[Check]:
    """A card whose renter or job is at work is left alone."""
    checks: list[Check] = []
    readings: list[Sample] = []
    began_ms = wall_ms()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_reading, tools, readings)
        for name, (_, backends) in catalogue.kernels().items():
            for backend in backends:
                if backend in tools.device.backends:
                    if occupied := tools.occupied():
                        nursery.cancel_scope.cancel()
                        return [*checks, rules.kernels_skipped(occupied)]
                    checks.append(rules.kernel(await _run(tools, name, backend)))
        if tools.device.kind is DeviceKind.CUDA:
            with trio.move_on_after(_READING_S):
                while not any(one.at_ms >= began_ms for one in readings):  # noqa: ASYNC110
                    await trio.sleep(_LOOK_S)
        nursery.cancel_scope.cancel()
    return [*checks, rules.thermals([one for one in readings if one.at_ms >= began_ms])]


async def _run(tools: Tools, name: str, backend: str) -> Ran:
    make = partial(tempfile.mkdtemp, prefix=measuring.SCRATCH, dir=tools.workers.folder)
    try:
        scratch = Path(await trio.to_thread.run_sync(make))
        try:
            with trio.fail_after(_KERNEL_S):
                return await _computed_and_judged(tools, name, backend, scratch)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(partial(shutil.rmtree, scratch, ignore_errors=True))
    except trio.TooSlowError:
        return Ran(name, backend, problem=f"it took longer than {_KERNEL_S:g} s")
    except _NotInstalled as error:
        return Ran(name, backend, problem=str(error), absent=True)
    except WorkerLost as error:
        return Ran(name, backend, problem=str(error) or type(error).__name__)
    except OSError as error:
        # Everybody reads it: no path of this machine.
        return Ran(name, backend, problem=error.strerror or type(error).__name__)


class _NotInstalled(Exception):
    """What this kernel needs on this back end is not on this machine."""


async def _computed_and_judged(tools: Tools, name: str, backend: str, scratch: Path) -> Ran:
    scale = tools.example_scale(backend)
    task, metas = await trio.to_thread.run_sync(partial(measuring.write_example, name, backend, scale, scratch, runs=1))
    units = get(name).units(metas, task.params)
    done = await _computed(tools, task, tools.device.device_id, scratch)
    others: tuple[Part, ...] = ()
    if not get(name).spec.verifier:
        reference = msgspec.structs.replace(task, backend="cpu")
        others = (_part(await _computed(tools, reference, "", scratch), reference, units),)
    check = VerifyTask(
        kernel=name,
        params=task.params,
        inputs=task.inputs,
        parts=(_part(done, task, units),),
        others=others,
        seed=os.urandom(32),
    )
    async with tools.workers.run(check, device_id="", scratch=scratch) as run:
        event = await run.next()
        if not isinstance(event, VerifyDone):
            raise WorkerLost(await _why(run, event))
    problem = "" if event.accepted else f"wrong result: {event.reason} {event.detail}".strip()
    return Ran(name, backend, done.run_ms, problem)


async def _computed(tools: Tools, task: RunTask, device_id: str, scratch: Path) -> ChunkDone:
    async with tools.workers.run(task, device_id=device_id, scratch=scratch) as run:
        event = await run.next()
        if isinstance(event, TaskFailed) and event.code == NOT_INSTALLED:
            raise _NotInstalled(event.detail)
        if not isinstance(event, ChunkDone):
            raise WorkerLost(await _why(run, event))
        return event


async def _why(run: Run, event: object) -> str:
    return event.detail if isinstance(event, TaskFailed) else await run.fate()


def _part(done: ChunkDone, task: RunTask, units: int) -> Part:
    return Part(start=0, stop=units, path=str(Path(task.out_dir) / Path(done.path).name))
