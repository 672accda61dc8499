# SPDX-License-Identifier: Apache-2.0
"""A whole node in a trial: it waits for each secret, answers what the seed says, and drops it for whoever pays."""

from pathlib import Path

import pytest
import trio

from qubix_kernels.trial import rules
from qubix_protocol.messages import Accept, RentalAccept, RentalStart, Report
from qubix_protocol.states import Outcome
from qubix_protocol.trials import (
    TrialAnswer,
    TrialAsk,
    TrialEnd,
    TrialFailed,
    TrialFilled,
    TrialGo,
    TrialPart,
    TrialProve,
    TrialReady,
    TrialShape,
)
from tests.support.node_world import DEVICE, World, matrices, open_world

pytestmark = pytest.mark.trio
TRIAL, OTHER = "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"
SEED, KEY = b"s" * 32, b"k" * 32
SHAPE = TrialShape(pages=4, rows=64, columns=64, depth=64)


def ask(trial_id: str = TRIAL, *, backend: str = "cpu", shape: TrialShape = SHAPE) -> TrialAsk:
    return TrialAsk(trial_id=trial_id, parts=(TrialPart(device_id=DEVICE.device_id, backend=backend, shape=shape),))


async def ready(world: World) -> None:
    await world.coordinator.send(ask())
    await world.coordinator.wait_for(TrialReady)


async def test_it_answers_what_the_seed_says_and_says_nothing_early(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        await ready(world)
        assert not world.coordinator.all(TrialFilled)
        await world.coordinator.send(TrialGo(trial_id=OTHER, seed=KEY))
        await world.coordinator.send(TrialGo(trial_id=TRIAL, seed=SEED))
        await world.coordinator.wait_for(TrialFilled)
        assert not world.coordinator.all(TrialAnswer)
        await world.coordinator.send(TrialProve(trial_id=TRIAL, key=KEY))
        answer = await world.coordinator.wait_for(TrialAnswer)
        await world.coordinator.send(TrialEnd(trial_id=TRIAL, verdict="passed"))
        found = rules.read_digests(answer.digests).tolist()
        assert found == rules.expected(SHAPE, SEED, KEY, DEVICE.device_id, list(range(SHAPE.pages)))
        assert not world.coordinator.all(TrialFailed)


async def test_a_job_goes_first_and_is_done(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        await ready(world)
        await world.coordinator.send(world.assign(matrices(32)))
        failed = await world.coordinator.wait_for(TrialFailed)
        assert (failed.trial_id, failed.reason) == (TRIAL, "busy")
        await world.coordinator.wait_for(Accept)
        report = await world.coordinator.wait_for(Report)
        assert report.outcome is Outcome.COMPLETED


async def test_a_rented_device_is_not_tried(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        await world.coordinator.send(
            RentalStart(
                rental_id=OTHER, device_id=DEVICE.device_id, rate_qu_per_h=1_000, seconds=600, offer_digest=bytes(32)
            )
        )
        await world.coordinator.wait_for(RentalAccept)
        await world.coordinator.send(ask())
        assert (await world.coordinator.wait_for(TrialFailed)).reason == "busy"
        assert not world.coordinator.all(TrialReady)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"backend": "cuda"}, "kernel_error"),
        ({"shape": TrialShape(pages=16_384, rows=2**16, columns=1024, depth=256)}, "out_of_memory"),
    ],
)
async def test_what_the_device_has_not_is_said(tmp_path: Path, changed: dict[str, object], reason: str) -> None:
    async with open_world(tmp_path) as world, world.node():
        await world.coordinator.send(ask(**changed))  # type: ignore[arg-type]
        assert (await world.coordinator.wait_for(TrialFailed)).reason == reason


async def test_an_end_gives_the_device_back_and_another_trial_may_come(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node() as node:
        await ready(world)
        await world.coordinator.send(ask(OTHER))
        assert (await world.coordinator.wait_for(TrialFailed)).trial_id == OTHER, "one at a time"
        await world.coordinator.send(TrialEnd(trial_id=TRIAL, verdict="failed", remedy="Mend it."))
        third = "00000000-0000-0000-0000-00000000000c"
        with trio.fail_after(60):
            while node.trials._trial is not None:  # noqa: ASYNC110
                await trio.sleep(0.01)
        await world.coordinator.send(ask(third))
        await world.coordinator.wait_for(TrialReady, lambda one: one.trial_id == third)
