# SPDX-License-Identifier: Apache-2.0
"""Trials of this node's devices: all at once, each in a worker of its own, and given up for any job or rental."""

import logging
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from qubix_kernels.tasks import TaskFailed
from qubix_kernels.trial.frames import TrialDone, TrialFull, TrialKey, TrialRoom, TrialSeed, TrialTask
from qubix_node.errors import WorkerLost
from qubix_node.jobs.worker import Run, Workers
from qubix_protocol.messages import Assign, Message, RentalStart
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
)

log = logging.getLogger("qubix_node")
TRIAL_S_MAX: Final = 600.0
"""However long it lasts: nothing of ours fills a device for longer."""
SCRATCH: Final = "trial."
BUSY: Final = "busy"


class _Trial:
    """One under way. `seed` and `key` come when the coordinator says them."""

    def __init__(self, ask: TrialAsk) -> None:
        self.ask: Final = ask
        self.scope: Final = trio.CancelScope()
        self.seed, self.key = _Awaited(), _Awaited()
        self.busy = False


class _Awaited:
    """Thirty-two bytes that somebody says later."""

    def __init__(self) -> None:
        self._said = trio.Event()
        self._value = b""

    def say(self, value: bytes) -> None:
        if not self._said.is_set():
            self._value = value
            self._said.set()

    async def get(self) -> bytes:
        await self._said.wait()
        return self._value


class Trials:
    """`say` brings a statement to the coordinator; `occupied` says why nothing of ours may run on a device, or ""."""

    def __init__(
        self,
        workers: Workers,
        *,
        say: Callable[[Message], None],
        occupied: Callable[[str], str],
        budget_bytes: int,
    ) -> None:
        self._workers, self._say, self._occupied, self._budget_bytes = workers, say, occupied, budget_bytes
        self._trial: _Trial | None = None
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await trio.sleep_forever()

    def command(self, message: Message) -> bool:
        """One believed statement of the coordinator; False when it is not about trials alone."""
        if isinstance(message, Assign | RentalStart):
            self._give_up()
            return False
        if isinstance(message, TrialAsk):
            self._begin(message)
        elif isinstance(message, TrialGo) and (trial := self._of(message.trial_id)):
            trial.seed.say(message.seed)
        elif isinstance(message, TrialProve) and (trial := self._of(message.trial_id)):
            trial.key.say(message.key)
        elif isinstance(message, TrialEnd):
            self._end(message)
        else:
            return isinstance(message, TrialGo | TrialProve)
        return True

    def _of(self, trial_id: str) -> _Trial | None:
        return self._trial if self._trial is not None and self._trial.ask.trial_id == trial_id else None

    def _begin(self, ask: TrialAsk) -> None:
        if self._of(ask.trial_id) is not None or self._nursery is None:
            return
        if self._trial is not None or any(self._occupied(part.device_id) for part in ask.parts):
            self._refuse(ask)
            return
        log.info("trial.began", extra={"trial": ask.trial_id[:8], "devices": len(ask.parts)})
        self._trial = _Trial(ask)
        self._nursery.start_soon(self._carry_out, self._trial)

    def _refuse(self, ask: TrialAsk) -> None:
        for part in ask.parts:
            self._say(TrialFailed(trial_id=ask.trial_id, device_id=part.device_id, reason=BUSY))

    def _give_up(self) -> None:
        """Whoever pays goes first."""
        if self._trial is not None:
            self._trial.busy = True
            self._trial.scope.cancel()

    def _end(self, end: TrialEnd) -> None:
        trial = self._of(end.trial_id)
        if trial is not None:
            trial.scope.cancel()
        facts = {"trial": end.trial_id[:8], "verdict": end.verdict, "finding": end.detail, "do": end.remedy}
        (log.info if not end.remedy else log.warning)("trial.ended", extra=facts)

    async def _carry_out(self, trial: _Trial) -> None:
        try:
            with trial.scope, trio.move_on_after(TRIAL_S_MAX):
                async with trio.open_nursery() as nursery:
                    for part in trial.ask.parts:
                        nursery.start_soon(self._part, trial, part)
        finally:
            self._trial = None
        if trial.busy:
            log.info("trial.given_up", extra={"trial": trial.ask.trial_id[:8]})
            self._refuse(trial.ask)

    async def _part(self, trial: _Trial, part: TrialPart) -> None:
        """Whatever goes wrong on one device is said of it; the others go on until the coordinator ends it."""
        make = partial(tempfile.mkdtemp, prefix=SCRATCH, dir=self._workers.folder)
        try:
            scratch = Path(await trio.to_thread.run_sync(make))
            try:
                await self._in_worker(trial, part, scratch)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(partial(shutil.rmtree, scratch, ignore_errors=True))
        except _Failed as failed:
            self._fail(trial, part, failed.reason, failed.detail)
        except (WorkerLost, OSError) as error:
            self._fail(trial, part, "worker_lost", str(error) or type(error).__name__)

    async def _in_worker(self, trial: _Trial, part: TrialPart, scratch: Path) -> None:
        trial_id, device_id = trial.ask.trial_id, part.device_id
        task = TrialTask(backend=part.backend, device_id=device_id, shape=part.shape)
        async with self._workers.run(
            task, device_id=device_id, scratch=scratch, memory_bytes=self._budget_bytes, wall_s=TRIAL_S_MAX
        ) as run:
            await _next(run, TrialRoom)
            self._say(TrialReady(trial_id=trial_id, device_id=device_id))
            await run.say(TrialSeed(seed=await trial.seed.get()))
            await _next(run, TrialFull)
            self._say(TrialFilled(trial_id=trial_id, device_id=device_id))
            await run.say(TrialKey(key=await trial.key.get()))
            done = await _next(run, TrialDone)
            self._say(TrialAnswer(trial_id=trial_id, device_id=device_id, digests=done.digests))

    def _fail(self, trial: _Trial, part: TrialPart, reason: str, detail: str) -> None:
        log.warning("trial.device_failed", extra={"device": part.device_id, "reason": reason, "detail": detail})
        self._say(
            TrialFailed(
                trial_id=trial.ask.trial_id,
                device_id=part.device_id,
                reason=reason if reason in _REASONS else "worker_lost",
                detail=detail.replace("\0", "")[:1000],
            )
        )


class _Failed(Exception):
    """The worker said that it cannot."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


_REASONS: Final = frozenset({"out_of_memory", "kernel_error", "bad_input", "box", "worker_lost"})


async def _next(run: Run, kind: type[Any]) -> Any:
    event = await run.next()
    if isinstance(event, kind):
        return event
    if isinstance(event, TaskFailed):
        raise _Failed(event.code, event.detail)
    raise WorkerLost(f"the trial's worker {await run.fate()}")
