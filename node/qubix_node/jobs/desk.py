# SPDX-License-Identifier: Apache-2.0
"""Everything about attempts meets here: commands from the coordinator, ends of runs, the clock. `rules` decides."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import trio

from qubix_node.clock import steady_ms, wall_ms
from qubix_node.jobs import rules
from qubix_node.jobs.journal import Done, Journal, LinkAcknowledged, Reported, Saved, Taken
from qubix_node.jobs.outbox import Outbox
from qubix_node.jobs.rules import Action, Decision, Event, Facts, Phase
from qubix_node.jobs.runner import Runner
from qubix_node.jobs.work import Work, restored
from qubix_node.link import Live
from qubix_protocol import barriers
from qubix_protocol.barriers import Barrier
from qubix_protocol.messages import (
    Accept,
    Acknowledged,
    Assign,
    Beat,
    Cancel,
    Decline,
    Heartbeat,
    LiveAttempt,
    Message,
    Progress,
    Refused,
    Settlement,
)
from qubix_protocol.units import PROGRESS_S_MAX

log = logging.getLogger("qubix_node")
_PROGRESS_MS: Final = round(PROGRESS_S_MAX * 800)
_ENDED_MAX: Final = 1024
_OPEN_MAX: Final = 256


class Desk:
    """`facts` tells what admission needs to know; `changed` is called when a device becomes busy or free."""

    def __init__(
        self,
        journal: Journal,
        outbox: Outbox,
        runner: Runner,
        facts: Callable[[Assign, "Desk"], Facts],
        changed: Callable[[], None],
    ) -> None:
        self._journal, self._outbox, self._runner = journal, outbox, runner
        self._facts, self._changed = facts, changed
        self._open: dict[str, Work] = {}
        self._ended: OrderedDict[str, tuple[str, rules.Attempt]] = OrderedDict()
        self._nursery: trio.Nursery | None = None
        self.draining = False

    # What others ask ------------------------------------------------------------------------------------------------

    def busy(self, device_id: str) -> int:
        return sum(work.active and work.assign.device_id == device_id for work in self._open.values())

    def active(self) -> list[Assign]:
        return [work.assign for work in self._open.values() if work.active]

    @property
    def idle(self) -> bool:
        """Nothing runs, and no report waits to be acknowledged."""
        return not self._open

    def fence_max(self, job_id: str) -> int:
        """The highest fencing number of this job that was accepted here (0: none that is remembered)."""
        fences = [work.assign.fence for work in self._open.values() if work.assign.job_id == job_id]
        return max([*fences, *(attempt.fence for job, attempt in self._ended.values() if job == job_id)], default=0)

    def live_attempts(self) -> tuple[LiveAttempt, ...]:
        """For the handshake: what is running here, or waits for its report's acknowledgement."""
        return tuple(
            LiveAttempt(attempt_id=work.attempt_id, fence=work.assign.fence, running=work.active)
            for work in self._open.values()
        )[:_OPEN_MAX]

    def beats(self) -> tuple[Beat, ...]:
        return tuple(work.beat(steady_ms()) for work in self._open.values() if work.active)[:_OPEN_MAX]

    async def heartbeat(self, live: Live) -> None:
        """A session's task, with nothing else to do, so that no work holds it up."""
        while True:
            await live.send(Heartbeat(attempts=self.beats()))
            await trio.sleep(live.welcome.heartbeat_s)

    # Life -----------------------------------------------------------------------------------------------------------

    async def run(self, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Takes up what the journal has, then runs attempts until cancelled (their runs end with it)."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for saved in list(self._journal.saved.values()):
                await self._restore(saved)
            task_status.started()
            await trio.sleep_forever()

    async def _restore(self, saved: Saved) -> None:
        work = restored(saved, steady_ms())
        self._open[work.attempt_id] = work
        for made in saved.links:
            if made.link.index not in saved.acknowledged:
                self._outbox.keep(
                    (work.attempt_id, made.link.index),
                    Progress(
                        attempt_id=work.attempt_id,
                        fence=work.assign.fence,
                        fraction=made.fraction,
                        elapsed_ms=made.elapsed_ms,
                        link=made.link,
                    ),
                )
        log.info("job.restored", extra={"attempt": work.attempt_id[:8], "links": work.chain.links})
        if saved.report is not None:
            self._outbox.keep((work.attempt_id, None), saved.report)
        else:
            await self._apply(work, rules.Restarted())

    async def drain(self) -> None:
        """Take nothing new, stop what runs; returns when every report was acknowledged."""
        self.draining = True
        for work in list(self._open.values()):
            await self._apply(work, rules.Quitting())
        while self._open:  # noqa: ASYNC110 - the caller's deadline ends it; nothing else happens meanwhile
            await trio.sleep(0.02)

    async def device_lost(self, device_id: str, reason: str) -> None:
        """Gives up what runs there; the reports say why."""
        for work in list(self._open.values()):
            if work.assign.device_id == device_id:
                await self._apply(work, rules.DeviceLost(reason))

    # Commands -------------------------------------------------------------------------------------------------------

    async def command(self, message: Message) -> None:
        """One believed statement of the coordinator."""
        if isinstance(message, Assign):
            await self._assigned(message)
        elif isinstance(message, Cancel):
            await self._known(message.attempt_id, rules.Cancelled(message.fence))
        elif isinstance(message, Acknowledged):
            await self._acknowledged(message)
        elif isinstance(message, Settlement):
            log.info(
                "job.settled",
                extra={"attempt": message.attempt_id[:8], "verdict": message.verdict, "paid_qu": message.paid_qu},
            )
            await self._known(message.attempt_id, rules.Settled())
        elif isinstance(message, Refused):
            log.info("link.coordinator_refused", extra={"code": message.code, "detail": message.detail})

    async def unanswered(self, attempt_id: str) -> None:
        log.warning("job.unanswered", extra={"attempt": attempt_id[:8]})
        await self._known(attempt_id, rules.Unanswered())

    async def _assigned(self, assign: Assign) -> None:
        work = self._open.get(assign.attempt_id) or self._new(assign)
        obstacle = ""
        if work.attempt.phase is Phase.UNKNOWN:
            obstacle = "busy" if len(self._open) >= _OPEN_MAX else rules.obstacle(assign, self._facts(assign, self))
        await self._apply(work, rules.Assigned(assign.fence, assign.time_limit_ms, obstacle), command=assign)

    def _new(self, assign: Assign) -> Work:
        work = Work(assign, wall_ms(), steady_ms())
        if assign.attempt_id in self._ended:
            work.attempt = self._ended[assign.attempt_id][1]
        return work

    async def _acknowledged(self, message: Acknowledged) -> None:
        news = self._outbox.acknowledge((message.attempt_id, message.link))
        if message.link is None:
            await self._known(message.attempt_id, rules.ReportAcknowledged())
        elif news:
            await self._journal.append(
                LinkAcknowledged(attempt_id=message.attempt_id, index=message.link), durable=False
            )

    async def _known(self, attempt_id: str, event: Event) -> None:
        work = self._open.get(attempt_id)
        if work is not None:
            await self._apply(work, event)

    # Decisions ------------------------------------------------------------------------------------------------------

    async def _apply(self, work: Work, event: Event, command: Assign | None = None) -> None:
        decision = rules.decide(work.attempt, event, steady_ms())
        work.attempt = decision.attempt
        for action in decision.actions:
            await self._do(action, work, decision, command)

    async def _do(self, action: Action, work: Work, decision: Decision, command: Assign | None) -> None:
        if action is Action.ACCEPT:
            await self._accept(work)
        elif action is Action.DECLINE:
            self._decline(command or work.assign, decision.reason)
        elif action is Action.START:
            assert self._nursery is not None, "the desk runs"
            self._nursery.start_soon(self._attempt, work)
        elif action is Action.KILL:
            work.scope.cancel()
        elif action is Action.REPORT:
            await self._report(work)
        elif action is Action.RESEND:
            self._outbox.resend((work.attempt_id, None))
        else:
            await self._forget(work)

    async def _accept(self, work: Work) -> None:
        if work.attempt_id not in self._open:
            self._open[work.attempt_id] = work
            await self._journal.append(Taken(assign=work.assign, started_ms=work.started_ms))
            log.info(
                "job.accepted",
                extra={"kernel": work.assign.kernel, "attempt": work.attempt_id[:8], "device": work.assign.device_id},
            )
            self._changed()
            await barriers.reach(Barrier.ACCEPTED)
        self._outbox.say(Accept(attempt_id=work.attempt_id, fence=work.assign.fence))

    def _decline(self, assign: Assign, reason: str) -> None:
        log.info("job.declined", extra={"attempt": assign.attempt_id[:8], "reason": reason})
        self._outbox.say(Decline(attempt_id=assign.attempt_id, fence=assign.fence, reason=reason))

    async def _report(self, work: Work) -> None:
        report = work.report(wall_ms())
        await self._journal.append(Reported(report=report))
        await barriers.reach(Barrier.REPORT_JOURNALLED)
        self._outbox.keep((work.attempt_id, None), report)
        facts: dict[str, object] = {
            "attempt": work.attempt_id[:8],
            "outcome": report.outcome.value,
            "links": report.links,
            "run_s": round(report.claimed_ms / 1000, 1),
        }
        if report.failure is not None:
            facts |= {"code": report.failure.code, "detail": report.failure.detail}
        log.info("job.reported", extra=facts)
        self._changed()

    async def _forget(self, work: Work) -> None:
        self._open.pop(work.attempt_id, None)
        self._outbox.forget(work.attempt_id)
        self._ended[work.attempt_id] = work.assign.job_id, work.attempt
        while len(self._ended) > _ENDED_MAX:
            self._ended.popitem(last=False)
        await self._journal.append(Done(attempt_id=work.attempt_id), durable=False)
        self._changed()

    # One attempt ----------------------------------------------------------------------------------------------------

    async def _attempt(self, work: Work) -> None:
        end: Event = rules.Failed("stopped", "")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, work)
            with work.scope:
                end = await self._run(work)
            nursery.cancel_scope.cancel()
        await self._apply(work, end)

    async def _run(self, work: Work) -> Event:
        async def moved(event: Event) -> None:
            await self._apply(work, event)

        await moved(rules.Began())
        try:
            return await self._runner.run(work, moved)
        except Exception as error:
            # A fault of ours in one job must not end the others: it is that job's failure, and a person's to look at.
            log.exception("job.internal_error", extra={"attempt": work.attempt_id})
            return rules.Failed("internal", type(error).__name__)

    async def _watch(self, work: Work) -> None:
        """The attempt's clock: its deadline, and progress when there was none for a while."""
        work.spoken_ms = steady_ms()
        while True:
            next_ms = min(work.spoken_ms + _PROGRESS_MS, work.attempt.deadline_ms)
            await trio.sleep(max(10, next_ms - steady_ms()) / 1000)
            await self._apply(work, rules.Ticked())
            if steady_ms() >= work.spoken_ms + _PROGRESS_MS:
                work.spoken_ms = steady_ms()
                self._outbox.say(work.progress(work.spoken_ms))
