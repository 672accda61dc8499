# SPDX-License-Identifier: Apache-2.0
"""The CPU as a device, and what the sampler makes of devices that go away."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from qubix_node.clock import wall_ms
from qubix_node.gpu import cpu
from qubix_node.gpu.cpu import CpuProbe
from qubix_node.gpu.fake import FakeProbe
from qubix_node.gpu.sampler import Sampler
from qubix_protocol.messages import Device, Sample
from qubix_protocol.states import DeviceKind
from qubix_protocol.units import READING_AGE_S_MAX

CARD = Device(device_id="GPU-1", kind=DeviceKind.CUDA, model="Card", memory_bytes=1, backends=("cuda",))


def test_the_cpu_is_marked_as_one_and_keeps_its_id() -> None:
    one, again = (CpuProbe("12D3KooWabcdefghijkl").devices()[0] for _ in range(2))
    assert one.kind is DeviceKind.CPU
    assert one.backends == ("cpu",)
    assert one.device_id == again.device_id == "cpu-abcdefghijkl"
    assert one.cores >= 1
    assert one.memory_bytes > 2**20
    assert one.model


def test_the_cpu_is_sampled() -> None:
    probe = CpuProbe("12D3KooWabcdefghijkl")
    sample = probe.sample(probe.devices()[0].device_id)
    assert sample is not None
    assert sample.utilisation_pct is not None
    assert 0 < (sample.memory_used_bytes or 0) <= (sample.memory_total_bytes or 0)
    assert probe.sample("somebody-else") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor : 0\nmodel name\t: Big  Chip 9000 @ 3GHz\n", "Big Chip 9000 @ 3GHz"),
        ("Hardware : Board X\n", "Board X"),
    ],
)
def test_the_model_is_the_processors_own_name(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu.model(tmp_path / "cpuinfo") == expected


def test_a_machine_without_cpuinfo_still_has_a_name(tmp_path: Path) -> None:
    assert cpu.model(tmp_path / "absent")


OTHER = Device(device_id="GPU-2", kind=DeviceKind.CUDA, model="Card", memory_bytes=1, backends=("cuda",))


@dataclass
class Watched:
    """A sampler that runs, over fake cards."""

    probe: FakeProbe
    sampler: Sampler
    lost: dict[str, str]

    async def until(self, what: Callable[[], object]) -> None:
        with trio.fail_after(60):
            while not what():  # noqa: ASYNC110
                await trio.sleep(0.01)


@asynccontextmanager
async def watched(*, silent_s: float = 60.0, busy: Callable[[str], object] = lambda _: False) -> AsyncIterator[Watched]:
    probe, lost = FakeProbe([CARD, OTHER]), dict[str, str]()

    async def heard(device: Device, reason: str) -> None:
        lost[device.device_id] = reason
        await trio.lowlevel.checkpoint()

    sampler = Sampler([probe], heard, busy=busy, silent_s=silent_s)
    sampler.period_s = 0.01
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        yield Watched(probe, sampler, lost)
        nursery.cancel_scope.cancel()
        for event in probe.hanging.values():
            event.set()


@pytest.mark.trio
async def test_a_device_that_goes_away_is_told() -> None:
    async with watched() as world:
        world.probe.gauges["GPU-1"] = Sample(at_ms=wall_ms(), temperature_c=50)
        await world.until(lambda: (found := world.sampler.latest("GPU-1")) and found.temperature_c == 50)
        assert world.sampler.devices() == (CARD, OTHER)
        world.probe.lose("GPU-1", "it fell off the bus")
        await world.until(lambda: world.lost)
        assert world.lost == {"GPU-1": "it fell off the bus"}
        assert (world.sampler.devices(), world.sampler.gone()) == ((OTHER,), (CARD,))
        assert world.sampler.latest("GPU-1") is None


@pytest.mark.trio
async def test_a_device_that_hangs_goes_off_the_market_for_good_and_the_others_are_read() -> None:
    async with watched(silent_s=2.0) as world:
        await world.until(lambda: world.sampler.latest("GPU-1"))
        world.probe.hanging["GPU-1"] = threading.Event()
        await world.until(lambda: world.lost)
        assert world.lost == {"GPU-1": "the driver did not answer within 2 s"}
        before = world.sampler.latest("GPU-2")
        world.probe.hanging["GPU-1"].set()
        await world.until(lambda: world.sampler.latest("GPU-2") != before)
        assert world.sampler.devices() == (OTHER,), "an answer that comes later is not believed"


@pytest.mark.trio
async def test_a_device_that_is_mute_for_a_moment_stays() -> None:
    async with watched() as world:
        world.probe.mute.add("GPU-1")
        await world.until(lambda: world.sampler.latest("GPU-2"))
        world.probe.mute.clear()
        await world.until(lambda: world.sampler.latest("GPU-1"))
        assert world.lost == {}


@pytest.mark.trio
async def test_a_device_that_stays_mute_goes_and_says_why() -> None:
    async with watched(silent_s=2.0) as world:
        world.probe.mute.add("GPU-1")
        await world.until(lambda: world.lost)
        assert world.lost["GPU-1"].startswith("no reading for")
        assert world.lost["GPU-1"].endswith("NoReading: GPU-1 is mute")


@pytest.mark.trio
async def test_an_error_that_nobody_thought_of_does_not_end_the_sampler() -> None:
    async with watched() as world:
        world.probe.sample = _broken(world.probe.sample)  # type: ignore[method-assign]
        await world.until(lambda: world.sampler.latest("GPU-2"))
        assert world.lost == {}


def _broken(real: Callable[[str], Sample | None]) -> Callable[[str], Sample | None]:
    def sample(device_id: str) -> Sample | None:
        if device_id == "GPU-1":
            raise ZeroDivisionError
        return real(device_id)

    return sample


@pytest.mark.trio
async def test_an_old_reading_is_not_told_as_what_is_now() -> None:
    async with watched() as world:
        world.probe.gauges["GPU-1"] = Sample(at_ms=wall_ms() - round(READING_AGE_S_MAX * 1000) - 1)
        await world.until(lambda: world.sampler.latest("GPU-2"))
        assert world.sampler.latest("GPU-1") is None


@pytest.mark.trio
async def test_free_memory_is_what_others_leave_not_what_our_own_job_takes() -> None:
    working = {"GPU-1"}
    async with watched(busy=lambda device_id: device_id in working) as world:
        for card, used in (("GPU-1", 20), ("GPU-2", 4)):
            world.probe.gauges[card] = Sample(at_ms=wall_ms(), memory_total_bytes=24, memory_used_bytes=used)
        await world.until(lambda: world.sampler.free_memory_bytes("GPU-2") == 20)
        assert world.sampler.free_memory_bytes("GPU-1") is None, "it was never seen idle"
        working.clear()
        await world.until(lambda: world.sampler.free_memory_bytes("GPU-1") == 4)
        world.probe.gauges["GPU-2"] = Sample(at_ms=wall_ms())
        await world.until(lambda: world.sampler.free_memory_bytes("GPU-2") is None)
        assert world.sampler.free_memory_bytes("no such device") is None


@pytest.mark.parametrize("problem", [NotImplementedError("no frequency file"), OSError("unreadable"), None])
def test_a_processor_whose_clock_is_not_told_has_none(
    monkeypatch: pytest.MonkeyPatch, problem: Exception | None
) -> None:
    def told() -> None:
        if problem is not None:
            raise problem

    monkeypatch.setattr("psutil.cpu_freq", told)
    assert cpu._clock() is None
