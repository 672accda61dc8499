# SPDX-License-Identifier: Apache-2.0
"""A whole node looks at itself: unasked after it went to market, asked for by the coordinator, not beside a renter."""

import errno
from pathlib import Path

import pytest
import trio

from qubix_node import rates
from qubix_node.selftest import desk
from qubix_node.selftest.asked import Ask, Asked, answer_to, ask
from qubix_protocol.messages import RentalAccept, RentalStart
from qubix_protocol.selftest import Check, CheckStatus, SelfTest, SelfTestAsk
from tests.support.node_world import DEVICE, open_world

pytestmark = pytest.mark.trio
RENTAL = "00000000-0000-0000-0000-00000000000a"
ASK_ID = "00000000-0000-0000-0000-00000000000b"


def of(test: SelfTest, check_id: str) -> Check:
    (found,) = (check for check in test.checks if check.id == check_id)
    return found


async def test_a_node_tests_itself_after_its_first_offer_and_runs_each_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "FIRST_S", 0.1)
    async with open_world(tmp_path) as world, world.node(tests_itself=True):
        test = await world.coordinator.wait_for(SelfTest)
        assert world.coordinator.offers, "listed first, tested then (R1.6)"
        assert (test.device_id, test.quick) == (DEVICE.device_id, False)
        kernels = [check for check in test.checks if check.id.startswith("kernel_")]
        assert [(check.id, check.status) for check in kernels] == [
            (f"kernel_{name}_cpu", CheckStatus.PASS)
            for name in ("knn", "mandelbrot", "matmul", "montecarlo_option", "onnx")
        ]
        assert of(test, "mesh").status is CheckStatus.PASS
        assert of(test, "clock").status is CheckStatus.PASS
        assert of(test, "rates").status is CheckStatus.WARN, "this world measured one kernel"
        assert of(test, "bandwidth").status is CheckStatus.SKIP, "this world has no HTTP"
        assert not test.full


async def test_the_coordinator_asks_and_a_clock_an_hour_off_is_said_and_decides_nothing(tmp_path: Path) -> None:
    async with open_world(tmp_path, clock_skew_ms=3_600_000) as world, world.node():
        await world.coordinator.send(SelfTestAsk(device_id=DEVICE.device_id, quick=True))
        test = await world.coordinator.wait_for(SelfTest, lambda one: one.quick)
        assert float(of(test, "clock").actual) == pytest.approx(-3600, abs=60), "less what the welcome took"
        assert test.passed
        assert not any(check.id.startswith("kernel") for check in test.checks)


async def test_a_rented_device_is_left_to_its_renter(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        await world.coordinator.send(
            RentalStart(
                rental_id=RENTAL, device_id=DEVICE.device_id, rate_qu_per_h=1_000, seconds=600, offer_digest=bytes(32)
            )
        )
        await world.coordinator.wait_for(RentalAccept)
        await world.coordinator.send(SelfTestAsk(device_id=DEVICE.device_id, quick=False))
        test = await world.coordinator.wait_for(SelfTest)
        assert (of(test, "kernels").status, of(test, "kernels").actual) == (CheckStatus.SKIP, "the device is rented")
        assert not test.full


async def test_a_kernel_that_cannot_run_fails_and_says_why(tmp_path: Path) -> None:
    """Only the claim is false: a processor that is offered with the back end of a card."""
    async with open_world(tmp_path) as world:
        world.probe.present = [type(DEVICE)(**{**_fields(), "backends": ("cuda",)})]
        async with world.node():
            await world.coordinator.send(SelfTestAsk(device_id=DEVICE.device_id, quick=False))
            test = await world.coordinator.wait_for(SelfTest)
    check = of(test, "kernel_matmul_cuda")
    assert check.status is CheckStatus.FAIL
    assert "no CUDA device" in check.actual
    assert check.remedy
    absent = of(test, "kernel_onnx_cuda")
    assert absent.status is CheckStatus.WARN, "what is not installed is not offered, and no fault of the card"
    assert "CUDAExecutionProvider" in absent.actual
    assert not test.passed


def _fields() -> dict[str, object]:
    return {name: getattr(DEVICE, name) for name in DEVICE.__struct_fields__}


async def test_who_asks_on_the_machine_gets_the_answer_to_its_own_question(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node() as node:
        folder = node._settings.node_dir
        question = Ask(ask_id=ASK_ID, quick=True)
        await trio.to_thread.run_sync(ask, folder, question)
        with trio.fail_after(60):
            while (tests := answer_to(folder, question)) is None:  # noqa: ASYNC110
                await trio.sleep(0.05)
        assert [test.device_id for test in tests] == [DEVICE.device_id]
        assert answer_to(folder, Ask(ask_id=RENTAL, quick=True)) is None


async def test_a_question_that_cannot_be_read_is_no_question(tmp_path: Path) -> None:
    for raw in (b"", b"{", b"\xff", b'{"ask_id": "x", "quick": true}'):
        (tmp_path / "selftest.ask").write_bytes(raw)
        assert Asked(tmp_path).look() is None
        assert not (tmp_path / "selftest.ask").exists()


async def test_a_disk_without_room_is_told_without_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody reads what was found."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "a.npy"))

    async with open_world(tmp_path) as world, world.node():
        monkeypatch.setattr(rates, "write_example", full)
        await world.coordinator.send(SelfTestAsk(device_id=DEVICE.device_id, quick=False))
        test = await world.coordinator.wait_for(SelfTest)
    check = of(test, "kernel_matmul_cpu")
    assert (check.status, check.actual) == (CheckStatus.FAIL, "No space left on device")
