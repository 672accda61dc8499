# SPDX-License-Identifier: Apache-2.0
"""A whole node whose device is rented: it answers nonces, takes the renter's jobs alone, and gives notice."""

from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import trio

from qubix_node import files
from qubix_node.__main__ import main
from qubix_node.clock import wall_ms
from qubix_node.node import _DRAINED_S, _LAST_WORD_S
from qubix_node.rentals import rules
from qubix_protocol.messages import (
    Accept,
    Decline,
    RentalAccept,
    RentalBeat,
    RentalDecline,
    RentalEnd,
    RentalNonce,
    RentalNotice,
    RentalStart,
    Report,
)
from qubix_protocol.states import Availability, Outcome, RentalReason
from tests.support.node_world import DEVICE, World, matrices, open_world

pytestmark = pytest.mark.trio
RENTAL, OTHER = "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"


def start(rental_id: str = RENTAL, **changed: object) -> RentalStart:
    known: dict[str, object] = {
        "rental_id": rental_id,
        "device_id": DEVICE.device_id,
        "rate_qu_per_h": 1_000,
        "seconds": 600,
        "offer_digest": bytes(32),
    }
    return RentalStart(**{**known, **changed})  # type: ignore[arg-type]


def end(rental_id: str = RENTAL) -> RentalEnd:
    return RentalEnd(rental_id=rental_id, reason=RentalReason.STOPPED_BY_CONSUMER, billed_ms=5_000, paid_qu=1)


async def offered(world: World, availability: Availability) -> None:
    await world.coordinator.until(lambda: world.coordinator.offers[-1:] != [] and _last(world) is availability)


def _last(world: World) -> Availability:
    return world.coordinator.offers[-1].availability


async def test_a_rented_device_answers_each_nonce_and_says_that_it_is_rented(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        await world.coordinator.send(start())
        await world.coordinator.wait_for(RentalAccept)
        await offered(world, Availability.RENTED)
        for number in range(3):
            nonce = bytes([number]) * 32
            await world.coordinator.send(RentalNonce(rental_id=RENTAL, nonce=nonce))
            answer = await world.coordinator.wait_for(RentalBeat, lambda beat, nonce=nonce: beat.nonce == nonce)
            assert answer.rental_id == RENTAL
        await world.coordinator.send(end())
        await offered(world, Availability.AVAILABLE)
        await world.coordinator.send(RentalNonce(rental_id=RENTAL, nonce=b"z" * 32))
        await world.coordinator.send(start(OTHER))
        await world.coordinator.wait_for(RentalAccept, lambda yes: yes.rental_id == OTHER)
        assert [beat.nonce for beat in world.coordinator.all(RentalBeat)] == [bytes([n]) * 32 for n in range(3)]


async def test_only_the_renter_s_jobs_are_taken_and_at_no_rate(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        await world.coordinator.send(start())
        await world.coordinator.wait_for(RentalAccept)
        strange = world.assign(matrices(16))
        await world.coordinator.send(strange)
        declined = await world.coordinator.wait_for(Decline)
        assert (declined.attempt_id, declined.reason) == (strange.attempt_id, "rented")
        own = world.assign(matrices(16), rental=RENTAL, rate_qu_per_h=0)
        await world.coordinator.send(own)
        await world.coordinator.wait_for(Accept)
        report = await world.coordinator.wait_for(Report)
        assert (report.attempt_id, report.outcome) == (own.attempt_id, Outcome.COMPLETED)


@pytest.mark.parametrize(
    ("changed", "reason"), [({"rate_qu_per_h": 999}, "price"), ({"device_id": "gpu-9"}, "unknown_device")]
)
async def test_what_it_cannot_serve_it_declines(tmp_path: Path, changed: dict[str, object], reason: str) -> None:
    async with open_world(tmp_path) as world, world.node():
        await world.coordinator.send(start(**changed))
        assert (await world.coordinator.wait_for(RentalDecline)).reason == reason


async def test_a_second_renter_is_declined_and_the_first_may_ask_again(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        await world.coordinator.send(start())
        await world.coordinator.send(start(OTHER))
        declined = await world.coordinator.wait_for(RentalDecline)
        assert (declined.rental_id, declined.reason) == (OTHER, "rented")
        await world.coordinator.send(start())
        await world.coordinator.until(lambda: len(world.coordinator.all(RentalAccept)) == 2)


async def test_a_new_session_names_what_is_rented(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        await world.coordinator.send(start())
        await world.coordinator.wait_for(RentalAccept)
        assert world.coordinator.peer is not None
        await world.coordinator.peer.stream.abort()
        await world.coordinator.until(lambda: len(world.coordinator.hellos) == 2)
        assert world.coordinator.hellos[-1].rentals == (RENTAL,)


async def test_a_node_that_stops_says_so_to_its_renter(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        await world.coordinator.send(start())
        await world.coordinator.wait_for(RentalAccept)
        world.stop.set()
        notice = await world.coordinator.wait_for(RentalNotice)
        assert (notice.rental_id, notice.device_lost) == (RENTAL, False)
        assert abs(notice.ends_ms - wall_ms()) < 60_000


async def test_a_node_that_stops_stays_until_its_renter_has_heard_of_it(tmp_path: Path) -> None:
    """The coordinator may take a while to answer; its answer is the last that the node waits for."""
    async with open_world(tmp_path) as world, world.node():
        await world.coordinator.send(start())
        await world.coordinator.wait_for(RentalAccept)
        world.stop.set()
        await world.coordinator.wait_for(RentalNotice)
        await trio.sleep(3 * _LAST_WORD_S)
        assert world.coordinator.peer is not None, "its connection stands"
        await world.coordinator.send(end())
        await world.coordinator.until(lambda: world.coordinator.peer is None)


async def test_a_lost_device_is_said_and_not_answered_for(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node() as node:
        await world.coordinator.send(start())
        await world.coordinator.wait_for(RentalAccept)
        await node.rentals.device_lost(DEVICE.device_id, "gone")
        notice = await world.coordinator.wait_for(RentalNotice)
        assert (notice.device_lost, notice.detail) == (True, "gone")


async def test_maintenance_is_announced_by_command_and_called_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_world(tmp_path) as world, world.node():
        await world.coordinator.send(start())
        await world.coordinator.wait_for(RentalAccept)
        folder = ["--data-dir", str(tmp_path)]
        with _running(tmp_path):
            status = await trio.to_thread.run_sync(main, [*folder, "--maintenance-in", "900", "--why", "new fan"])
        assert status == 0
        assert "Consumers are told" in capsys.readouterr().out
        notice = await world.coordinator.wait_for(RentalNotice)
        assert notice.detail == "new fan"
        assert 800_000 < notice.ends_ms - world.coordinator.clock_ms() < 1_000_000
        await offered(world, Availability.RENTED)
        await world.coordinator.send(end())
        await offered(world, Availability.DRAINING)
        await world.coordinator.send(start(OTHER))
        assert (await world.coordinator.wait_for(RentalDecline)).reason == "draining"
        with _running(tmp_path):
            assert await trio.to_thread.run_sync(main, [*folder, "--maintenance-off"]) == 0
        await offered(world, Availability.AVAILABLE)


async def test_a_drained_node_finishes_what_it_has_and_leaves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_world(tmp_path) as world, world.node():
        await world.coordinator.send(start())
        await world.coordinator.wait_for(RentalAccept)
        with _running(tmp_path):
            said = ["--data-dir", str(tmp_path), "--drain", "--why", "moving house"]
            assert await trio.to_thread.run_sync(main, said) == 0
        assert "stops when its jobs are finished" in capsys.readouterr().out
        notice = await world.coordinator.wait_for(RentalNotice)
        assert notice.detail == "moving house"
        assert 800_000 < notice.ends_ms - world.coordinator.clock_ms() < 1_000_000
        await offered(world, Availability.RENTED)
        assert not world.stop.is_set(), "somebody has rented it"
        await world.coordinator.send(end())
        await offered(world, Availability.OFFLINE)
        assert world.stop.is_set()


async def test_a_job_that_runs_holds_up_the_leaving_and_another_is_declined(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node() as node:
        world.store.puts_allowed = 0
        running = world.assign(matrices(64))
        await world.coordinator.send(running)
        await world.coordinator.wait_for(Accept)
        with _running(tmp_path):
            said = ["--data-dir", str(tmp_path), "--drain"]
            assert await trio.to_thread.run_sync(main, said) == 0
        await world.coordinator.until(lambda: node.rentals.closing(DEVICE.device_id))
        await world.coordinator.send(world.assign(matrices(8)))
        assert (await world.coordinator.wait_for(Decline)).reason == "draining"
        await trio.sleep(2 * _DRAINED_S)
        assert not world.stop.is_set(), "it has looked since whether it may leave"
        world.store.go_on()
        report = await world.coordinator.wait_for(Report)
        assert (report.attempt_id, report.outcome) == (running.attempt_id, Outcome.COMPLETED)
        await offered(world, Availability.OFFLINE)
        assert world.stop.is_set()


def _running(folder: Path) -> AbstractContextManager[None]:
    """The lock that the real process holds."""
    return files.locked(folder / "node")


async def test_maintenance_of_no_node_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data-dir", str(tmp_path), "--maintenance-in", "60"]) == 1
    assert "no node runs" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--data-dir", str(tmp_path), "--maintenance-in", "-1"])


async def test_a_rental_that_nobody_speaks_of_is_forgotten() -> None:
    held = rules.Held(RENTAL, "gpu-1", 1_000)
    assert not rules.forgotten(held, 1_000 + rules.QUIET_MS - 1)
    assert rules.forgotten(held, 1_000 + rules.QUIET_MS)
