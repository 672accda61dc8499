# SPDX-License-Identifier: Apache-2.0
"""What a node measures of each of its devices at the start: real workers, small examples."""

import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import trio

from qubix_kernels import get
from qubix_kernels.kernel import metas_of
from qubix_kernels.tasks import ChunkDone, Event, RunTask, TaskFailed
from qubix_node import catalogue
from qubix_node.gpu.device import DeviceProbe
from qubix_node.gpu.fake import FakeProbe
from qubix_node.jobs.worker import Run, Workers
from qubix_node.measuring import Measuring, devices_of
from qubix_node.rates import SCRATCH, Plan, measured
from qubix_protocol.messages import Device, KernelRate
from qubix_protocol.states import DeviceKind

pytestmark = pytest.mark.trio
CPU = Device(device_id="cpu-1", kind=DeviceKind.CPU, model="m", memory_bytes=2**30, backends=("cpu",))
# What a card is to the measuring: a device of its own, whatever runs its kernels here.
CARD = msgspec.structs.replace(CPU, device_id="GPU-1", kind=DeviceKind.CUDA, driver="580.1")
OTHER_CARD = msgspec.structs.replace(CARD, device_id="GPU-2")
KERNELS = frozenset(name for name, (_, backends) in catalogue.kernels().items() if "cpu" in backends)
QUICK = Plan(16, 16, growth=2, repeats=1, worker_runs=1, warm_up=0, enough_s=3600, device_s=3600)


class WatchedRun:
    """Makes the first run of a worker slow, as a card's first is, by the word of its event."""

    def __init__(self, run: Run, slow_ms: float) -> None:
        self._run, self._slow_ms = run, slow_ms
        self.times: list[float] = []

    async def next(self) -> Event | None:
        event = await self._run.next()
        if isinstance(event, ChunkDone):
            if not self.times and self._slow_ms:
                event = msgspec.structs.replace(event, run_ms=self._slow_ms)
            self.times.append(event.run_ms)
        return event

    async def fate(self) -> str:
        return await self._run.fate()


class FailedRun:
    async def next(self) -> Event:
        await trio.lowlevel.checkpoint()
        return TaskFailed(code="kernel_error", detail="this kernel cannot be compiled for the device")


class WatchedWorkers(Workers):
    """`tasks` has (device, kernel) of everything that ran; what is in `failing` does not run."""

    def __init__(self, folder: Path, failing: Sequence[tuple[str, str]] = (), slow_ms: float = 0.0) -> None:
        super().__init__(1, folder / "scratch")
        self.failing, self.slow_ms = set(failing), slow_ms
        self.tasks: list[tuple[str, str]] = []
        self.runs: list[WatchedRun] = []
        self.held: dict[tuple[str, str], trio.Event] = {}
        """What is in it does not begin before its event."""

    @contextlib.asynccontextmanager
    async def run(self, task: RunTask, *, device_id: str, **limits: Any) -> AsyncIterator[Run]:
        self.tasks.append((device_id, task.kernel))
        if (device_id, task.kernel) in self.held:
            await self.held[device_id, task.kernel].wait()
        if (device_id, task.kernel) in self.failing:
            yield FailedRun()  # type: ignore[misc]
            return
        async with super().run(task, device_id=device_id, **limits) as run:
            self.runs.append(WatchedRun(run, self.slow_ms))
            yield self.runs[-1]  # type: ignore[misc]


@contextlib.asynccontextmanager
async def watched(folder: Path, **known: Any) -> AsyncIterator[WatchedWorkers]:
    workers = WatchedWorkers(folder, **known)
    try:
        yield workers
    finally:
        await workers.close()


async def left_in(folder: Path) -> list[str]:
    return await trio.to_thread.run_sync(lambda: [path.name for path in folder.iterdir()])


def kernels(rates: Sequence[KernelRate]) -> set[str]:
    return {rate.kernel for rate in rates}


async def test_each_device_is_measured_by_itself_and_only_once(tmp_path: Path) -> None:
    async with watched(tmp_path) as workers:
        devices = [CARD, CPU, OTHER_CARD]
        first = await measured(workers, tmp_path, devices, {"cpu": QUICK})
        assert {device: kernels(rates) for device, rates in first.items()} == {
            device.device_id: KERNELS for device in devices
        }
        assert sorted(workers.tasks) == sorted(itertools.product([one.device_id for one in devices], KERNELS))
        assert {device for device, _ in workers.tasks[: len(KERNELS)]} == {"cpu-1"}, "the processor alone, then cards"
        kept = (tmp_path / "rates.json").read_bytes()
        assert await measured(workers, tmp_path, devices, {"cpu": QUICK}) == first
        assert len(workers.tasks) == 3 * len(KERNELS)
        assert (tmp_path / "rates.json").read_bytes() == kept
        assert await left_in(tmp_path / "scratch") == [], "nothing of the examples is left"


async def test_another_card_or_model_is_measured_anew_and_the_absent_one_remembered(tmp_path: Path) -> None:
    async with watched(tmp_path) as workers:
        await measured(workers, tmp_path, [CARD, OTHER_CARD], {"cpu": QUICK})
        workers.tasks.clear()
        changed = msgspec.structs.replace(CARD, model="another one under the same id")
        await measured(workers, tmp_path, [changed], {"cpu": QUICK})
        assert {device for device, _ in workers.tasks} <= {"GPU-1"}
        workers.tasks.clear()
        await measured(workers, tmp_path, [OTHER_CARD], {"cpu": QUICK})
        assert workers.tasks == []


async def test_a_kernel_that_does_not_run_on_a_card_is_not_offered_there_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(tmp_path, failing=[("GPU-1", "matmul")]) as workers:
        with caplog.at_level(logging.WARNING):
            rates = await measured(workers, tmp_path, [CARD, OTHER_CARD], {"cpu": QUICK})
        assert kernels(rates["GPU-1"]) == KERNELS - {"matmul"}
        assert kernels(rates["GPU-2"]) == KERNELS
        (said,) = [vars(record) for record in caplog.records if record.message == "rates.not_measured"]
        assert (said["device"], said["kernel"]) == ("GPU-1", "matmul")
        assert "cannot be compiled" in said["reason"]
        workers.failing.clear()
        workers.tasks.clear()
        rates = await measured(workers, tmp_path, [CARD, OTHER_CARD], {"cpu": QUICK})
        assert workers.tasks == [("GPU-1", "matmul")]
        assert kernels(rates["GPU-1"]) == KERNELS


async def test_a_card_s_first_run_does_not_count(tmp_path: Path) -> None:
    """It makes the context and compiles: nobody pays for that, and a forecast from it would be far too high."""
    plan = replace(QUICK, worker_runs=4, warm_up=1)
    async with watched(tmp_path, slow_ms=9_000.0) as workers:
        rates = await measured(workers, tmp_path, [CARD], {"cpu": plan})
        assert [len(run.times) for run in workers.runs] == [4] * len(KERNELS)
        kernel = get("matmul")
        arrays, params = kernel.example(np.random.default_rng(16), 16)
        cost = kernel.cost(metas_of(arrays), params, 16)
        (rate,) = [rate for rate in rates["GPU-1"] if rate.kernel == "matmul"]
        (times,) = [run.times for run, task in zip(workers.runs, workers.tasks, strict=True) if task[1] == "matmul"]
        assert rate.flops_per_s == pytest.approx(cost.flops / (max(min(times[1:]), 1e-3) / 1000))


async def test_measuring_is_bounded_and_goes_on_at_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(tmp_path) as workers:
        with caplog.at_level(logging.WARNING):
            rates = await measured(workers, tmp_path, [CPU], {"cpu": replace(QUICK, device_s=0.0)})
        assert len(rates["cpu-1"]) == 1
        assert sum(record.message == "rates.no_time_left" for record in caplog.records) == len(KERNELS) - 1
        rates = await measured(workers, tmp_path, [CPU], {"cpu": QUICK})
        assert kernels(rates["cpu-1"]) == KERNELS
        assert len(workers.tasks) == len(KERNELS)


async def test_a_larger_example_is_tried_while_there_is_time(tmp_path: Path) -> None:
    async with watched(tmp_path) as workers:
        plan = replace(QUICK, scale_max=64, repeats=2)
        await measured(workers, tmp_path, [CPU], {"cpu": plan})
        assert workers.tasks.count(("cpu-1", "matmul")) == 4, "16, 32, 64 and 64 again"
        await measured(workers, tmp_path, [CARD], {"cpu": replace(plan, enough_s=0.0)})
        assert workers.tasks.count(("GPU-1", "matmul")) == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"machine": "m", "rates": []}', b'[{"device_id": 1}]', b'[{"device_id": "\xff"}]']
)
async def test_what_cannot_be_read_is_measured(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rates.json").write_bytes(content)
    async with watched(tmp_path) as workers:
        assert kernels((await measured(workers, tmp_path, [CPU], {"cpu": QUICK}))["cpu-1"]) == KERNELS


# When a node goes to market -----------------------------------------------------------------------------------------


class World:
    """A node that measures, with the plans of a test; `enough` is set when it would go to market."""

    def __init__(self, workers: WatchedWorkers, folder: Path, devices: list[Device], spare: Device | None) -> None:
        probes: list[DeviceProbe] = [FakeProbe(devices)]
        chosen = None if spare is None else lambda: FakeProbe([spare])
        self.measuring = Measuring(workers, folder, probes, {"cpu": QUICK}, chosen)
        self.enough, self.changes = trio.Event(), 0
        self.measuring.changed = self._count

    def _count(self) -> None:
        self.changes += 1

    async def wait(self) -> None:
        await self.measuring.until_enough(0.0)
        self.enough.set()


@contextlib.asynccontextmanager
async def measuring(
    workers: WatchedWorkers, folder: Path, devices: list[Device], spare: Device | None = None
) -> AsyncIterator[World]:
    world = World(workers, folder, devices, spare)
    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.measuring.run)
            nursery.start_soon(world.wait)
            yield world


async def reached(workers: WatchedWorkers, device_id: str, kernel: str) -> None:
    while (device_id, kernel) not in workers.tasks:  # noqa: ASYNC110
        await trio.sleep(0.01)


async def test_a_node_with_a_card_goes_to_market_and_the_card_is_rented_when_it_is_measured(tmp_path: Path) -> None:
    """R1.2: it is listed at once. Beside a job a measurement would be wrong for ever, hence none is assigned yet."""
    last = max(KERNELS)
    async with watched(tmp_path) as workers:
        workers.held["GPU-1", last] = trio.Event()
        async with measuring(workers, tmp_path, [CARD]) as world:
            await world.enough.wait()
            await reached(workers, "GPU-1", last)
            assert (world.measuring.rates, world.changes) == ({}, 0)
            workers.held["GPU-1", last].set()
        assert kernels(world.measuring.rates["GPU-1"]) == KERNELS
        assert world.changes == 1


async def test_a_processor_is_measured_to_the_end_before_it_is_offered(tmp_path: Path) -> None:
    last = max(KERNELS)
    async with watched(tmp_path) as workers:
        workers.held["cpu-1", last] = trio.Event()
        async with measuring(workers, tmp_path, [CPU]) as world:
            await reached(workers, "cpu-1", last)
            assert not world.enough.is_set()
            workers.held["cpu-1", last].set()
            await world.enough.wait()
        assert kernels(world.measuring.rates["cpu-1"]) == KERNELS


async def test_where_nothing_runs_on_any_card_the_spare_is_offered(tmp_path: Path) -> None:
    last = max(KERNELS)
    async with watched(tmp_path, failing=[("GPU-1", kernel) for kernel in KERNELS]) as workers:
        workers.held["cpu-1", last] = trio.Event()
        async with measuring(workers, tmp_path, [CARD], spare=CPU) as world:
            await reached(workers, "cpu-1", last)
            assert not world.enough.is_set(), "a processor is measured to the end"
            workers.held["cpu-1", last].set()
            await world.enough.wait()
        assert {device.device_id for device in devices_of(world.measuring.probes)} == {"GPU-1", "cpu-1"}
        assert (world.measuring.rates["GPU-1"], kernels(world.measuring.rates["cpu-1"])) == ((), KERNELS)


async def test_what_a_killed_node_left_of_its_examples_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "scratch" / f"{SCRATCH}left"
    async with watched(tmp_path) as workers:
        await trio.Path(left).mkdir()
        await measured(workers, tmp_path, [], {"cpu": QUICK})
        assert await left_in(tmp_path / "scratch") == []
