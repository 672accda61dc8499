# SPDX-License-Identifier: Apache-2.0
"""A node with several cards: each is offered by its own id, and one that fails takes only its own job with it."""

import threading
from pathlib import Path

import msgspec
import pytest
import trio

from qubix_node.clock import wall_ms
from qubix_node.gpu.fake import FakeProbe
from qubix_protocol.messages import Accept, Decline, Device, Offer, Report, Sample
from qubix_protocol.states import Availability, DeviceKind, Outcome
from tests.support.node_world import World, matrices, open_world

pytestmark = pytest.mark.trio
# Cards to everything but their kernels, which run on this machine's processor.
ONE = Device(device_id="GPU-1", kind=DeviceKind.CUDA, model="Card", memory_bytes=2**34, backends=("cpu",))
TWO = msgspec.structs.replace(ONE, device_id="GPU-2")


def with_cards(world: World) -> FakeProbe:
    world.probe = FakeProbe([ONE, TWO])
    return world.probe


def availability(world: World, device: Device) -> Availability | None:
    """As it was said last."""
    said = [offer.availability for offer in world.coordinator.offers if offer.device == device]
    return said[-1] if said else None


def newest(world: World, device: Device) -> Offer:
    return [offer for offer in world.coordinator.offers if offer.device == device][-1]


async def test_every_card_is_offered_by_its_id_with_its_own_readings(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        probe = with_cards(world)
        for card, heat in ((ONE, 50.0), (TWO, 60.0)):
            probe.gauges[card.device_id] = Sample(at_ms=wall_ms(), temperature_c=heat, throttle=("thermal",))
        async with world.node():
            await world.coordinator.until(
                lambda: all(
                    availability(world, card) is Availability.AVAILABLE and newest(world, card).metrics is not None
                    for card in (ONE, TWO)
                )
            )
            told = [newest(world, card).metrics for card in (ONE, TWO)]
            assert [one and one.temperature_c for one in told] == [50.0, 60.0]
            assert [one and one.throttle for one in told] == [("thermal",), ("thermal",)]


async def test_a_card_that_is_lost_fails_its_job_at_once_and_the_other_goes_on(tmp_path: Path) -> None:
    """What the consumer waits for is run elsewhere, not until the time limit has passed."""
    async with open_world(tmp_path) as world:
        probe = with_cards(world)
        async with world.node() as node:
            world.store.puts_allowed = 0
            lost, kept = (world.assign(matrices(16, seed=i), device_id=f"GPU-{i}") for i in (1, 2))
            for assign in (lost, kept):
                await world.coordinator.send(assign)
            await world.coordinator.until(lambda: len(world.coordinator.all(Accept)) == 2)
            probe.lose("GPU-1", "the driver reported critical error Xid 79")
            report = await world.coordinator.wait_for(Report)
            assert (report.attempt_id, report.outcome) == (lost.attempt_id, Outcome.FAILED)
            assert report.failure is not None
            assert (report.failure.code, "Xid 79" in report.failure.detail) == ("device_lost", True)
            await world.coordinator.until(lambda: availability(world, ONE) is Availability.OFFLINE)
            assert newest(world, ONE).metrics is None
            assert [assign.attempt_id for assign in node.desk.active()] == [kept.attempt_id]
            assert availability(world, TWO) is Availability.BUSY
            await world.coordinator.send(world.assign(matrices(16), device_id="GPU-1"))
            assert (await world.coordinator.wait_for(Decline)).reason == "unknown_device"


async def test_a_job_that_does_not_fit_what_is_free_on_the_card_is_declined(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        probe = with_cards(world)
        size = matrices(64)["a"].nbytes
        for card, used in ((ONE, 2**34 - size), (TWO, 0)):
            reading = Sample(at_ms=wall_ms(), memory_total_bytes=2**34, memory_used_bytes=used)
            probe.gauges[card.device_id] = reading
        async with world.node() as node:
            await world.coordinator.until(lambda: node.sampler.free_memory_bytes("GPU-1") == size)
            await world.coordinator.until(lambda: node.sampler.free_memory_bytes("GPU-2") == 2**34)
            await world.coordinator.send(world.assign(matrices(64), device_id="GPU-1"))
            assert (await world.coordinator.wait_for(Decline)).reason == "memory"
            await world.coordinator.send(world.assign(matrices(64), device_id="GPU-2"))
            assert (await world.coordinator.wait_for(Report)).outcome is Outcome.COMPLETED


async def test_a_driver_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        probe = with_cards(world)
        probe.hanging["GPU-1"] = threading.Event()
        try:
            async with world.node() as node:
                await world.coordinator.until(lambda: availability(world, TWO) is Availability.AVAILABLE)
                with trio.fail_after(60):
                    world.stop.set()
                    while not probe.closed:  # noqa: ASYNC110
                        await trio.sleep(0.01)
                assert node.sampler.latest("GPU-1") is None
        finally:
            probe.hanging["GPU-1"].set()
