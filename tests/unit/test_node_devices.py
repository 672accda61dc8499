# SPDX-License-Identifier: Apache-2.0
"""The CPU as a device, and what the sampler makes of devices that go away."""

from pathlib import Path

import pytest
import trio

from qubix_node.gpu import cpu
from qubix_node.gpu.cpu import CpuProbe
from qubix_node.gpu.fake import FakeProbe
from qubix_node.gpu.sampler import Sampler
from qubix_protocol.messages import Device, Sample
from qubix_protocol.states import DeviceKind

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


@pytest.mark.trio
async def test_a_device_that_goes_away_is_told() -> None:
    probe, heard = FakeProbe([CARD]), trio.Event()
    probe.gauges["GPU-1"] = Sample(at_ms=1, temperature_c=50)
    sampler = Sampler([probe], heard.set)
    async with trio.open_nursery() as nursery:
        sampler.period_s = 0.01
        nursery.start_soon(sampler.run)
        with trio.fail_after(60):
            while "GPU-1" not in sampler.latest:  # noqa: ASYNC110
                await trio.sleep(0.01)
            assert sampler.latest["GPU-1"].temperature_c == 50
            assert sampler.devices() == (CARD,)
            probe.lose("GPU-1")
            await heard.wait()
        nursery.cancel_scope.cancel()
    assert sampler.devices() == ()
    assert sampler.gone() == (CARD,)
