# SPDX-License-Identifier: Apache-2.0
"""`python -m qubix_coordinator.jobs.verify_process`: checks finished attempts; several may run side by side.

Ending it in the middle of a check loses nothing: its claim runs out and another verifier starts anew.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import socket
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import psutil

from qubix_coordinator import logs
from qubix_coordinator.artifacts.store import ArtifactStore
from qubix_coordinator.barriers import hold
from qubix_coordinator.clock import SystemClock
from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import Unavailable
from qubix_coordinator.jobs import verifiers, verify
from qubix_coordinator.jobs.checker import Checker
from qubix_coordinator.jobs.describer import Describer
from qubix_coordinator.jobs.verify_settings import VerifierSettings, from_environment_or_exit
from qubix_coordinator.signals import StopSignal, stopped_while_starting
from qubix_kernels.box import machine
from qubix_kernels.zygote import Zygote, ZygoteDied
from qubix_protocol import barriers, usage
from qubix_protocol.barriers import Barrier

log = logging.getLogger(__name__)
IDLE_FIRST_S = 0.05
IDLE_MAX_S = 0.25
LEAVE_S = 1.0


async def for_ever(db: Database, one: Callable[[], Awaitable[bool]]) -> None:
    """`one` does what waits, and says whether anything did."""
    idle_s = IDLE_FIRST_S
    while True:
        try:
            idle_s = IDLE_FIRST_S if await one() else min(IDLE_MAX_S, idle_s * 1.5)
        except Unavailable:
            await db.until_back()
        if idle_s > IDLE_FIRST_S:
            await asyncio.sleep(idle_s)


class Verifier:
    """One slot: claims, checks, records, again. Run as many as may check at a time."""

    def __init__(self, db: Database, checker: Checker, name: str, now_ms: Callable[[], int]) -> None:
        self._db, self._checker, self._name, self._now_ms = db, checker, name, now_ms

    async def run(self) -> None:
        await for_ever(self._db, self.one)

    async def one(self) -> bool:
        """Checks one attempt, if one waits."""
        claim = await self._db.run(lambda tx: verify.claim(tx, self._name, self._now_ms()))
        if claim is None:
            return False
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(self._keep(claim))
            finding = await self._checker.check(claim)
            keeping.cancel()
        await barriers.reach(Barrier.FOUND)
        recorded = await self._record(claim, finding)
        await barriers.reach(Barrier.RECORDED)
        log.info(
            "verifier.checked",
            extra={
                "attempt": str(claim.attempt_id),
                "accepted": finding.accepted,
                "reason": finding.reason,
                "check_ms": finding.check_ms,
                "recorded": recorded,
            },
        )
        return True

    async def _record(self, claim: verify.Claim, finding: verify.Finding) -> bool:
        """What was found out is worth waiting for; whether the claim was lost meanwhile, `verify.record` says."""
        while True:
            try:
                return await self._db.run(lambda tx: verify.record_for(tx, claim, self._name, finding, self._now_ms()))
            except Unavailable:
                await self._db.until_back()

    async def _keep(self, claim: verify.Claim) -> None:
        while True:
            await asyncio.sleep(verify.CLAIM_MS / 3000)
            try:
                await self._db.run(lambda tx: verify.keep(tx, claim, self._name, self._now_ms()))
            except Unavailable:
                await self._db.until_back()


async def serve(settings: VerifierSettings, start_zygote: Callable[..., Zygote] = Zygote.start) -> None:
    if settings.barriers is not None:
        barriers.install(partial(hold, settings.barriers))
    stop = StopSignal()
    isolation = await asyncio.to_thread(machine.wished, settings.verifier_box, "QUBIX_VERIFIER_BOX")
    with _own_folder(settings.data_dir / "checks") as folder:
        start = partial(start_zygote, folders=[folder], threads=settings.verifier_threads, isolation=isolation)
        zygote = await asyncio.to_thread(start)
        try:
            db = await Database.connect(settings)
            try:
                store = ArtifactStore.open(settings)
                checker = Checker(store, zygote, folder, deadline_s=settings.verifier_deadline_s)
                describer = Describer(db, store, zygote, folder, deadline_s=settings.verifier_model_deadline_s)
                await _serve(settings, db, checker, describer, stop)
            finally:
                await db.close()
        finally:
            await asyncio.to_thread(zygote.close)


@contextlib.contextmanager
def _own_folder(parent: Path) -> Iterator[Path]:
    """Where this process keeps what it checks, until it ends; what those left that were killed is removed."""
    host = socket.gethostname()
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in parent.glob(f"{host}.*"):
        if not psutil.pid_exists(int(left.name.rpartition(".")[2])):
            shutil.rmtree(left, ignore_errors=True)
    folder = parent / f"{host}.{os.getpid()}"
    folder.mkdir(mode=0o700)
    try:
        yield folder.resolve()  # a box shows folders by their true names
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _serve(
    settings: VerifierSettings, db: Database, checker: Checker, describer: Describer, stop: StopSignal
) -> None:
    clock = SystemClock()
    host = socket.gethostname()
    await db.run(lambda tx: verifiers.beat(tx, host, os.getpid()))
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(Verifier(db, checker, f"{host}:{os.getpid()}:{slot}", lambda: now_ms(clock)).run())
            for slot in range(settings.verifier_parallel)
        ]
        for slot in range(settings.verifier_models):
            name = f"{host}:{os.getpid()}:model:{slot}"
            tasks.append(group.create_task(for_ever(db, partial(describer.one, name, lambda: now_ms(clock)))))
        tasks.append(group.create_task(keep_beating(db, host)))
        tell_ready(settings)
        stop.started()
        await stop.asked.wait()
        for task in tasks:
            task.cancel()
    with contextlib.suppress(Unavailable, TimeoutError):
        async with asyncio.timeout(LEAVE_S):
            await db.run(lambda tx: verifiers.leave(tx, host, os.getpid()))


async def keep_beating(db: Database, host: str) -> None:
    while True:
        try:
            await db.run(lambda tx: verifiers.beat(tx, host, os.getpid()))
        except Unavailable:
            await db.until_back()
        else:
            await asyncio.sleep(verifiers.BEAT_S)


def now_ms(clock: SystemClock) -> int:
    return round(clock.now().timestamp() * 1000)


def tell_ready(settings: VerifierSettings) -> None:
    log.info("verifier.ready", extra={"parallel": settings.verifier_parallel})
    if settings.ready_fd is not None:
        with os.fdopen(settings.ready_fd, "w") as out:
            out.write(json.dumps({"process": "verifier", "pid": os.getpid()}) + "\n")


def main() -> None:
    summary = "Checks finished work before anybody is paid, until Ctrl-C."
    usage.parser("qubix verifier", summary, VerifierSettings).parse_args()
    settings = from_environment_or_exit()
    logs.configure(settings.log_level, as_json=settings.log_json)
    try:
        with stopped_while_starting():
            asyncio.run(serve(settings))
    except* (Unavailable, ZygoteDied, machine.NoBox) as group:
        for problem in group.exceptions:
            log.error("verifier.stopped", extra={"problem": str(problem)})  # noqa: TRY400 - one line says it
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
