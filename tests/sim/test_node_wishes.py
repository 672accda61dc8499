# SPDX-License-Identifier: Apache-2.0
"""A whole node that is told what its owner wants of a device: price, pause, a time at which it must be free."""

from pathlib import Path
from typing import Final

import pytest
import trio

from qubix_node import files
from qubix_node.__main__ import main
from qubix_node.offers import wishes
from qubix_protocol.messages import Accept, Decline, RentalAccept, RentalDecline, RentalNotice, Report
from qubix_protocol.states import Availability
from qubix_protocol.wishes import DeviceWish, DeviceWishTaken
from tests.sim.test_node_rentals import start
from tests.support.node_world import DEVICE, World, matrices, open_world

pytestmark = pytest.mark.trio
RATE: Final = 1_000
"""The setting of the world's nodes."""


def wish(revision: int = 1, **changed: object) -> DeviceWish:
    known: dict[str, object] = {
        "device_id": DEVICE.device_id,
        "revision": revision,
        "rate_qu_per_h": None,
        "paused": False,
        "free_ms": None,
    }
    return DeviceWish(**{**known, **changed})  # type: ignore[arg-type]


async def told(world: World, one: DeviceWish) -> DeviceWishTaken:
    """What it answers to this."""
    before = len(world.coordinator.all(DeviceWishTaken))
    await world.coordinator.send(one)
    await world.coordinator.until(lambda: len(world.coordinator.all(DeviceWishTaken)) > before)
    answer = world.coordinator.all(DeviceWishTaken)[-1]
    assert (answer.device_id, answer.revision) == (one.device_id, one.revision)
    return answer


async def offered(world: World, rate: int, availability: Availability = Availability.AVAILABLE) -> None:
    def so() -> bool:
        last = world.coordinator.offers[-1:]
        return bool(last) and (last[0].rate_qu_per_h, last[0].availability) == (rate, availability)

    await world.coordinator.until(so)


async def test_a_price_is_offered_asked_and_kept_over_a_restart(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        async with world.node():
            await offered(world, RATE)
            taken = await told(world, wish(rate_qu_per_h=RATE + 500))
            assert (taken.problem, taken.rate_qu_per_h) == ("", RATE + 500)
            await offered(world, RATE + 500)
            await world.coordinator.send(start(rate_qu_per_h=RATE + 499))
            assert (await world.coordinator.wait_for(RentalDecline)).reason == "price"
        async with world.node():
            await offered(world, RATE + 500)
            await told(world, wish(2))
            await offered(world, RATE)


async def test_what_is_said_on_the_machine_afterwards_holds_and_a_repeat_changes_nothing(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        await told(world, wish(rate_qu_per_h=RATE + 500))
        await offered(world, RATE + 500)
        arguments = ["--data-dir", str(world.folder), "--rate", str(RATE), "--set-rate", str(RATE + 7)]
        with files.locked(world.folder / "node"):
            assert await trio.to_thread.run_sync(main, arguments) == 0
        await offered(world, RATE + 7)
        again = await told(world, wish(rate_qu_per_h=RATE + 500))
        assert (again.problem, again.rate_qu_per_h) == ("", RATE + 7)
        # A wish about something else does not bring the old price back.
        paused = await told(world, wish(2, rate_qu_per_h=RATE + 500, paused=True))
        assert paused.rate_qu_per_h == RATE + 7
        await offered(world, RATE + 7, Availability.DRAINING)
        assert (await told(world, wish(3, rate_qu_per_h=RATE + 600))).rate_qu_per_h == RATE + 600


async def test_a_paused_device_finishes_what_runs_and_begins_nothing(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        await offered(world, RATE)
        running = world.assign(matrices(16))
        await world.coordinator.send(running)
        await world.coordinator.wait_for(Accept)
        await told(world, wish(paused=True))
        assert (await world.coordinator.wait_for(Report)).attempt_id == running.attempt_id
        await offered(world, RATE, Availability.DRAINING)
        refused = world.assign(matrices(16))
        await world.coordinator.send(refused)
        assert (await world.coordinator.wait_for(Decline)).attempt_id == refused.attempt_id
        await world.coordinator.send(start())
        assert (await world.coordinator.wait_for(RentalDecline)).reason == "draining"
        await told(world, wish(2))
        await offered(world, RATE)
        await world.coordinator.send(start())
        await world.coordinator.wait_for(RentalAccept)


async def test_a_renter_is_told_when_the_device_must_be_free(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        await world.coordinator.send(start())
        await world.coordinator.wait_for(RentalAccept)
        free_ms = world.coordinator.clock_ms() + 900_000
        await told(world, wish(free_ms=free_ms, why="a new fan"))
        notice = await world.coordinator.wait_for(RentalNotice)
        assert (notice.ends_ms, notice.detail, notice.device_lost) == (free_ms, "a new fan", False)
        await world.coordinator.send(start("00000000-0000-0000-0000-00000000000c"))
        await world.coordinator.wait_for(RentalDecline)


async def test_a_device_that_is_not_here_is_refused_and_a_later_word_for_it_is_heard(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        answer = await told(world, wish(device_id="gpu-9", rate_qu_per_h=5))
        assert answer.problem == wishes.UNKNOWN
        assert (await told(world, wish(rate_qu_per_h=5))).problem == ""


async def test_an_unreadable_file_is_no_wish(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        (world.folder / "node").mkdir(exist_ok=True)
        (world.folder / "node" / wishes.NAME).write_text('{"x": {"revision": "no"}}')
        async with world.node():
            await offered(world, RATE)
            assert (await told(world, wish(rate_qu_per_h=5))).rate_qu_per_h == 5
