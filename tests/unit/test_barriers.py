# SPDX-License-Identifier: Apache-2.0
"""A barrier holds only a process that was started for it, on no network that matters, until the test answers."""

import asyncio
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from qubix_coordinator.barriers import hold as coordinator_hold
from qubix_coordinator.jobs.verify_settings import from_mappings as verifier_settings
from qubix_coordinator.settings import from_mappings as coordinator_settings
from qubix_node.barriers import hold as node_hold
from qubix_node.settings import from_mappings as node_settings
from qubix_protocol import barriers
from qubix_protocol.barriers import Barrier
from qubix_protocol.settings import SettingsError
from tests.support.barriers import Barriers


@pytest.fixture
def served() -> Iterator[Barriers]:
    with tempfile.TemporaryDirectory(prefix="qx-") as folder, Barriers(Path(folder) / "b") as found:
        yield found


@pytest.fixture
def _nothing_stays() -> Iterator[None]:
    yield
    barriers.install(None)


@pytest.mark.parametrize("settings", [coordinator_settings, verifier_settings, node_settings])
def test_no_process_of_the_main_network_can_be_held(settings: object) -> None:
    assert callable(settings)
    assert settings({"QUBIX_BARRIERS": "/x", "QUBIX_NETWORK": "devnet"}, {}).barriers == Path("/x")
    assert settings({"QUBIX_NETWORK": "main"}, {}).barriers is None
    with pytest.raises(SettingsError, match="never held") as refused:
        settings({"QUBIX_BARRIERS": "/x", "QUBIX_NETWORK": "main"}, {})
    assert refused.value.name == "QUBIX_BARRIERS"


@pytest.mark.usefixtures("_nothing_stays")
def test_the_port_that_was_installed_is_asked_and_no_other() -> None:
    met: list[Barrier] = []

    async def port(barrier: Barrier) -> None:
        met.append(barrier)

    async def walk() -> None:
        await barriers.reach(Barrier.SUBMITTED)
        barriers.install(port)
        await barriers.reach(Barrier.ASSIGNED)
        barriers.install(None)
        await barriers.reach(Barrier.ACCEPTED)

    asyncio.run(walk())
    assert met == [Barrier.ASSIGNED]


def test_a_node_stands_at_an_armed_barrier_until_it_is_released(served: Barriers) -> None:
    async def main() -> None:
        with served.armed(Barrier.COMPUTED) as hold:
            await node_hold(served.path, Barrier.FETCHED)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node_hold, served.path, Barrier.COMPUTED)
                await trio.to_thread.run_sync(hold.wait)
                await node_hold(served.path, Barrier.COMPUTED)  # one stands there: the next passes
                hold.release()

    trio.run(main)


def test_a_coordinator_stands_at_the_barrier_it_was_told_after_so_many_others(served: Barriers) -> None:
    async def main() -> None:
        with served.armed(Barrier.ASSIGNED, skip=1) as hold:
            await coordinator_hold(served.path, Barrier.ASSIGNED)
            assert not hold.reached
            held = asyncio.create_task(coordinator_hold(served.path, Barrier.ASSIGNED))
            await asyncio.to_thread(hold.wait)
            assert not held.done()
            hold.release()
            await held

    asyncio.run(main())


def test_a_hold_can_be_cancelled_and_ends_when_the_test_is_gone(served: Barriers) -> None:
    async def main() -> None:
        with served.armed(Barrier.COMPUTED) as hold, trio.move_on_after(60) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node_hold, served.path, Barrier.COMPUTED)
                await trio.to_thread.run_sync(hold.wait)
                nursery.cancel_scope.cancel()
        assert not scope.cancelled_caught
        await node_hold(served.path.with_name("nobody"), Barrier.COMPUTED)

    trio.run(main)
    asyncio.run(coordinator_hold(served.path.with_name("nobody"), Barrier.ASSIGNED))


def test_only_the_process_that_is_meant_is_held(served: Barriers) -> None:
    with served.armed(Barrier.COMPUTED, pid=1) as hold:
        trio.run(partial(node_hold, served.path, Barrier.COMPUTED))
        assert not hold.reached
