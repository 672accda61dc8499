# SPDX-License-Identifier: Apache-2.0
"""kill -9 of each part at each step of a job, each step held at a barrier: whatever dies, the job ends paid once.

No cell depends on a moment: the step stands still while the victim is killed, and only then goes on.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from qubix_protocol.barriers import OF_NO_JOB, Barrier
from tests.support.crash_market import VICTIMS, Consumer, CrashMarket, check_everything, running

QUICK = {(Barrier.SUBMITTED, "coordinator")}
"""Daily. So is a killed database in test_database_killed, and a killed node in test_spread."""
CELLS = [
    pytest.param(
        barrier, victim, marks=() if (barrier, victim) in QUICK else pytest.mark.slow, id=f"{barrier}-{victim}"
    )
    for victim in VICTIMS
    for barrier in Barrier
    if barrier not in OF_NO_JOB
]


class Running:
    """One market for all cells, made anew after a cell that failed."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._pair: tuple[CrashMarket, Consumer] | None = None

    def get(self) -> tuple[CrashMarket, Consumer]:
        if self._pair is None:
            folder = Path(tempfile.mkdtemp(prefix="qx-"))
            self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self._pair = self._stack.enter_context(running(folder))
        return self._pair

    def close(self) -> None:
        self._pair = None
        self._stack.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    found = Running()
    yield found
    found.close()


@pytest.mark.parametrize(("barrier", "victim"), CELLS)
def test_whatever_dies_at_a_step_the_job_ends_paid_once(shared: Running, barrier: Barrier, victim: str) -> None:
    market, consumer = shared.get()
    try:
        with market.barriers.armed(barrier) as step:
            job = consumer.submit_aside()
            step.wait()
            market.kill(victim)
        market.restart(victim)
        view = job.finish()
        check_everything(market, view, job.key)
    except BaseException:
        print(market.logs())
        shared.close()
        raise
