# SPDX-License-Identifier: Apache-2.0
"""Jobs on a whole node with a real zygote: the chain, the report, the numbers, and every way to be interrupted."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
import trio

from qubix_node.jobs.store_fake import FakeStore
from qubix_protocol import digests
from qubix_protocol.arrays import unpack_arrays
from qubix_protocol.messages import (
    Accept,
    Assign,
    Cancel,
    Decline,
    Heartbeat,
    Progress,
    Range,
    Report,
    Settlement,
)
from qubix_protocol.states import Outcome, Reason
from tests.support.node_world import World, matrices, open_world

pytestmark = pytest.mark.trio


def check_chain(links: Sequence[Progress], report: Report) -> None:
    """Each link follows the one before it, and the report is about the last."""
    head, units, claimed = digests.ZERO, 0, 0
    for index, progress in enumerate(links):
        assert progress.link is not None
        assert (progress.link.index, progress.link.predecessor) == (index, head)
        head = digests.of_link(progress.link)
        units += progress.link.units.units
        claimed += progress.link.claimed_ms
    assert (report.links, report.head, report.units_done, report.claimed_ms) == (len(links), head, units, claimed)


def product_of(store: FakeStore, links: Sequence[Progress]) -> np.ndarray:
    parts = [unpack_arrays(store.content[p.link.output_digest])["c"] for p in links if p.link is not None]
    return np.concatenate(parts)


async def test_a_job_is_run_reported_and_right(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node() as node:
        arrays = matrices(64)
        assign = world.assign(arrays)
        await world.coordinator.send(assign)
        report = await world.coordinator.wait_for(Report)
        links = world.coordinator.links()
        check_chain(links, report)
        assert report.outcome is Outcome.COMPLETED
        assert report.failure is None
        assert (report.job_id, report.attempt_id, report.fence) == (assign.job_id, assign.attempt_id, assign.fence)
        assert report.params_digest == digests.of_params(assign.params)
        assert report.inputs_digest == digests.of_inputs(assign.inputs)
        assert len(links) >= 2
        assert [p.fraction for p in links] == sorted(p.fraction for p in links)
        assert links[-1].fraction == 1.0
        np.testing.assert_allclose(product_of(world.store, links), arrays["a"] @ arrays["b"], rtol=1e-4, atol=1e-4)
        await world.coordinator.until(lambda: len(node.outbox) == 0)
        kinds = [type(m) for m in world.coordinator.heard if isinstance(m, Accept | Report)]
        assert kinds == [Accept, Report]
        assert list((node_dir(world) / "scratch").iterdir()) == [], "nothing is left behind"


async def test_only_the_assigned_ranges_are_run(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        arrays = matrices(64)
        await world.coordinator.send(world.assign(arrays, ranges=(Range(8, 20), Range(40, 64))))
        report = await world.coordinator.wait_for(Report)
        links = world.coordinator.links()
        check_chain(links, report)
        assert report.units_done == 36
        rows = [*range(8, 20), *range(40, 64)]
        expected = (arrays["a"] @ arrays["b"])[rows]
        np.testing.assert_allclose(product_of(world.store, links), expected, rtol=1e-4, atol=1e-4)


async def test_an_assignment_that_comes_again_runs_once(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node() as node:
        assign = world.assign(matrices(32))
        await world.coordinator.send(assign)
        await world.coordinator.send(assign)
        await world.coordinator.wait_for(Report)
        await world.coordinator.until(lambda: len(world.coordinator.all(Accept)) == 2)
        await world.coordinator.until(lambda: len(node.outbox) == 0)
        await world.coordinator.send(assign)
        decline = await world.coordinator.wait_for(Decline)
        assert decline.reason == "already_done"
        assert len(world.coordinator.all(Report)) == 1


async def test_a_busy_node_declines_and_takes_the_next(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        world.store.puts_allowed = 0
        first, second = world.assign(matrices(16)), world.assign(matrices(16, seed=2))
        await world.coordinator.send(first)
        await world.coordinator.wait_for(Accept)
        await world.coordinator.send(second)
        assert (await world.coordinator.wait_for(Decline)).reason == "busy"
        await world.coordinator.send(Cancel(attempt_id=first.attempt_id, fence=1, reason=Reason.SUPERSEDED))
        await world.coordinator.wait_for(Report)
        world.store.puts_allowed = None
        await world.coordinator.send(second)
        report = await world.coordinator.wait_for(Report, lambda r: r.attempt_id == second.attempt_id)
        assert report.outcome is Outcome.COMPLETED


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"device_id": "gpu-0"}, "unknown_device"),
        ({"rate_qu_per_h": 1}, "price"),
        ({"kernel": "nothing"}, "unknown_kernel"),
        ({"params": {"k": 1}}, "bad_input"),
    ],
)
async def test_what_it_cannot_do_is_declined_with_the_reason(
    tmp_path: Path, changed: dict[str, object], reason: str
) -> None:
    async with open_world(tmp_path) as world, world.node():
        await world.coordinator.send(world.assign(matrices(8), **changed))
        assert (await world.coordinator.wait_for(Decline)).reason == reason


async def test_more_than_fits_the_disk_is_declined(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node(disk_bytes=1024):
        await world.coordinator.send(world.assign(matrices(64)))
        assert (await world.coordinator.wait_for(Decline)).reason == "disk"


# Interruptions ------------------------------------------------------------------------------------------------------


def long_job(world: World, **changed: object) -> Assign:
    """Some seconds of work in one chunk."""
    rng = np.random.default_rng(3)
    arrays = {name: rng.standard_normal((3000, 3000)) for name in ("a", "b")}
    return world.assign(arrays, chunk_units=3000, **changed)


async def worker_of(world: World) -> psutil.Process:
    """The one worker, once it computes."""
    zygote = psutil.Process((await world.workers.warm()).pid)
    with trio.fail_after(60):
        while not (children := zygote.children()):  # noqa: ASYNC110
            await trio.sleep(0.005)
        while children[0].cpu_times().user < 0.05:  # noqa: ASYNC110
            await trio.sleep(0.005)
    return children[0]


async def gone(process: psutil.Process) -> None:
    with trio.fail_after(60):
        while process.is_running():  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_cancel_kills_the_worker_and_keeps_the_links(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        world.store.puts_allowed = 2
        assign = world.assign(matrices(64), chunk_units=8)
        await world.coordinator.send(assign)
        await world.coordinator.until(lambda: len(world.coordinator.links()) == 2)
        await world.coordinator.send(Cancel(attempt_id=assign.attempt_id, fence=1, reason=Reason.CANCELLED_BY_CONSUMER))
        report = await world.coordinator.wait_for(Report)
        assert report.outcome is Outcome.CANCELLED
        assert report.links == 2
        check_chain(world.coordinator.links(), report)


async def test_cancel_while_computing_kills_the_worker(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        assign = long_job(world)
        await world.coordinator.send(assign)
        worker = await worker_of(world)
        await world.coordinator.send(Cancel(attempt_id=assign.attempt_id, fence=1, reason=Reason.SUPERSEDED))
        report = await world.coordinator.wait_for(Report)
        assert (report.outcome, report.links) == (Outcome.CANCELLED, 0)
        await gone(worker)


async def test_the_deadline_kills_the_worker(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        await world.workers.warm()
        await world.coordinator.send(long_job(world, time_limit_ms=400))
        report = await world.coordinator.wait_for(Report)
        assert report.failure is not None
        assert (report.outcome, report.failure.code) == (Outcome.FAILED, "overdue")
        zygote = psutil.Process((await world.workers.warm()).pid)
        assert zygote.children() == []


async def test_a_worker_that_is_killed_is_a_failed_attempt_and_the_node_goes_on(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        first = long_job(world)
        await world.coordinator.send(first)
        (await worker_of(world)).kill()
        report = await world.coordinator.wait_for(Report)
        assert report.failure is not None
        assert (report.failure.code, report.outcome) == ("worker_lost", Outcome.FAILED)
        assert "SIGKILL" in report.failure.detail
        second = world.assign(matrices(16))
        await world.coordinator.send(second)
        again = await world.coordinator.wait_for(Report, lambda r: r.attempt_id == second.attempt_id)
        assert again.outcome is Outcome.COMPLETED


async def test_a_data_folder_behind_a_link_is_as_good(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    async with open_world(link) as world, world.node():
        await world.coordinator.send(world.assign(matrices(16)))
        assert (await world.coordinator.wait_for(Report)).outcome is Outcome.COMPLETED


async def test_a_zygote_that_is_killed_is_replaced(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        os.kill((await world.workers.warm()).pid, signal.SIGKILL)
        await world.coordinator.send(world.assign(matrices(16)))
        assert (await world.coordinator.wait_for(Report)).outcome is Outcome.COMPLETED


async def test_a_job_that_needs_too_much_memory_fails_alone(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node(memory_bytes=64 * 2**20):
        await world.coordinator.send(world.assign(matrices(512)))
        report = await world.coordinator.wait_for(Report)
        assert report.outcome is Outcome.FAILED
        assert report.failure is not None
        assert report.failure.code in {"out_of_memory", "worker_lost", "kernel_error", "bad_input"}


async def test_an_input_that_the_store_refuses_is_a_failed_attempt(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        assign = world.assign(matrices(16))
        world.store.refuses.add(assign.inputs[0].digest)
        await world.coordinator.send(assign)
        report = await world.coordinator.wait_for(Report)
        assert report.failure is not None
        assert (report.outcome, report.failure.code) == (Outcome.FAILED, "store_refused")


async def test_an_input_that_is_not_what_its_digest_says_is_not_computed_on(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        assign = world.assign(matrices(16))
        world.store.content[assign.inputs[0].digest] = bytes(assign.inputs[0].size_bytes)
        await world.coordinator.send(assign)
        report = await world.coordinator.wait_for(Report)
        assert report.failure is not None
        assert report.failure.code == "wrong_content"


async def test_progress_and_heartbeats_go_on_without_links(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        world.store.puts_allowed = 0
        assign = world.assign(matrices(16))
        await world.coordinator.send(assign)
        progress = await world.coordinator.wait_for(Progress)
        assert (progress.link, progress.fraction) == (None, 0.0)
        beats = await world.coordinator.wait_for(Heartbeat, lambda h: bool(h.attempts))
        assert (beats.attempts[0].attempt_id, beats.attempts[0].fence) == (assign.attempt_id, 1)


async def test_inputs_are_fetched_once_for_jobs_that_share_them(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node():
        for number in (1, 2):
            await world.coordinator.send(world.assign(matrices(16)))
            await world.coordinator.until(lambda number=number: len(world.coordinator.all(Report)) == number)
        assert sum(what == "fetch" for what, _ in world.store.asked) == 2


async def test_a_settlement_ends_an_attempt_without_a_report(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node() as node:
        world.store.puts_allowed = 0
        assign = world.assign(matrices(16))
        await world.coordinator.send(assign)
        await world.coordinator.wait_for(Accept)
        await world.coordinator.send(settlement(assign))
        await world.coordinator.wait_for(Heartbeat, lambda h: not h.attempts)
        with trio.fail_after(60):
            while node.desk.live_attempts():  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert world.coordinator.all(Report) == []


def settlement(assign: Assign) -> Settlement:
    zero: dict[str, int] = dict.fromkeys(
        ("units_accepted", "check_ms", "run_ms", "billed_ms", "rate_qu_per_h", "paid_qu", "fee_qu", "decided_ms"), 0
    )
    return Settlement(
        network="devnet",
        job_id=assign.job_id,
        attempt_id=assign.attempt_id,
        provider="p",
        report_digest=bytes(32),
        head=bytes(32),
        units_total=assign.units_total,
        verdict="empty",
        **zero,
    )


def node_dir(world: World) -> Path:
    return world.folder / "node"


# Restarts and lost connections --------------------------------------------------------------------------------------


async def test_a_restarted_node_reports_what_it_had_done(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        world.store.puts_allowed = 2
        assign = world.assign(matrices(64), chunk_units=8)
        async with world.node():
            await world.coordinator.send(assign)
            await world.coordinator.until(lambda: len(world.coordinator.links()) == 2)
        async with world.node():
            report = await world.coordinator.wait_for(Report)
            hello = world.coordinator.hellos[-1]
            assert [(a.attempt_id, a.running) for a in hello.attempts] == [(assign.attempt_id, False)]
            assert report.failure is not None
            assert (report.outcome, report.failure.code, report.links) == (Outcome.FAILED, "restarted", 2)
            check_chain(world.coordinator.links(), report)


async def test_a_restarted_node_says_again_what_was_not_acknowledged(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        world.coordinator.acknowledges = False
        assign = world.assign(matrices(64))
        async with world.node():
            await world.coordinator.send(assign)
            report = await world.coordinator.wait_for(Report)
        first = world.coordinator.links()
        world.coordinator.heard.clear()
        world.coordinator.acknowledges = True
        async with world.node() as node:
            again = await world.coordinator.wait_for(Report)
            assert again == report
            assert world.coordinator.links() == first
            await world.coordinator.until(lambda: len(node.outbox) == 0)
        world.coordinator.heard.clear()
        async with world.node():
            await world.coordinator.wait_for(Heartbeat)
            assert world.coordinator.all(Report) == [], "what was acknowledged is never said again"
            assert world.coordinator.hellos[-1].attempts == ()


async def test_a_lost_connection_in_the_middle_costs_nothing(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node() as node:
        world.coordinator.acknowledges = False
        world.store.puts_allowed = 2
        assign = world.assign(matrices(64), chunk_units=8)
        await world.coordinator.send(assign)
        await world.coordinator.until(lambda: len(world.coordinator.links()) == 2)
        before = world.coordinator.links()
        await cut(world)
        world.coordinator.heard.clear()
        world.coordinator.acknowledges = True
        await world.coordinator.until(lambda: len(world.coordinator.hellos) == 2)
        live = world.coordinator.hellos[-1].attempts
        assert [(a.attempt_id, a.running) for a in live] == [(assign.attempt_id, True)]
        world.store.puts_allowed = None
        await world.coordinator.until(lambda: len(world.coordinator.links()) >= 2)
        assert world.coordinator.links()[:2] == before, "the same bodies, under the new session"
        await world.coordinator.send(Cancel(attempt_id=assign.attempt_id, fence=1, reason=Reason.SUPERSEDED))
        report = await world.coordinator.wait_for(Report)
        check_chain(world.coordinator.links(), report)
        await world.coordinator.until(lambda: len(node.outbox) == 0)


async def cut(world: World) -> None:
    """Every connection of the coordinator breaks; new ones are possible at once."""
    for peer in world.coordinator.mesh.connected():
        await world.coordinator.mesh.disconnect(peer)
    await world.coordinator.until(lambda: world.coordinator.peer is None)
