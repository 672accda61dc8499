# SPDX-License-Identifier: Apache-2.0
"""One attempt under way: its assignment, where it stands, and the chain of its links."""

from dataclasses import dataclass, field

import trio

from qubix_node.jobs import rules
from qubix_node.jobs.journal import Saved
from qubix_protocol import digests
from qubix_protocol.messages import Assign, Beat, Failure, Link, Progress, Range, Report
from qubix_protocol.states import Outcome


@dataclass(slots=True)
class Chain:
    """The links so far; `head` commits to all of them."""

    links: int = 0
    units: int = 0
    claimed_ms: int = 0
    head: bytes = digests.ZERO

    def next(self, units: Range, output_digest: bytes, output_bytes: int, run_ms_total: float) -> Link:
        """`run_ms_total` includes this chunk: rounding the sum, not each part, keeps tiny chunks from costing nothing
        or too much."""
        return Link(
            index=self.links,
            units=units,
            output_digest=output_digest,
            output_bytes=output_bytes,
            claimed_ms=max(0, round(run_ms_total) - self.claimed_ms),
            predecessor=self.head,
        )

    def add(self, link: Link) -> None:
        self.links += 1
        self.units += link.units.units
        self.claimed_ms += link.claimed_ms
        self.head = digests.of_link(link)


@dataclass(slots=True, eq=False)
class Work:
    """Times: `started_ms` is wall time, `accepted_ms` steady."""

    assign: Assign
    started_ms: int
    accepted_ms: int
    attempt: rules.Attempt = field(default_factory=rules.Attempt)
    chain: Chain = field(default_factory=Chain)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    spoken_ms: int = 0
    """When progress was said last."""

    @property
    def attempt_id(self) -> str:
        return self.assign.attempt_id

    @property
    def active(self) -> bool:
        return self.attempt.phase in rules.ACTIVE

    def fraction(self, units: int) -> float:
        return rules.fraction(units, ((part.start, part.stop) for part in self.assign.ranges))

    def elapsed_ms(self, now_ms: int) -> int:
        return max(0, now_ms - self.accepted_ms)

    def progress(self, now_ms: int, link: Link | None = None) -> Progress:
        """`link` is the one that follows the chain, not yet in it."""
        return Progress(
            attempt_id=self.attempt_id,
            fence=self.assign.fence,
            fraction=self.fraction(self.chain.units + (link.units.units if link else 0)),
            elapsed_ms=self.elapsed_ms(now_ms),
            link=link,
        )

    def beat(self, now_ms: int) -> Beat:
        return Beat(
            attempt_id=self.attempt_id,
            fence=self.assign.fence,
            fraction=self.fraction(self.chain.units),
            elapsed_ms=self.elapsed_ms(now_ms),
        )

    def report(self, finished_ms: int) -> Report:
        """By the attempt's verdict, which there must be."""
        verdict, assign = self.attempt.verdict, self.assign
        assert verdict is not None, "an attempt is reported once its end is known"
        failed = verdict.outcome is Outcome.FAILED
        return Report(
            job_id=assign.job_id,
            attempt_id=assign.attempt_id,
            fence=assign.fence,
            outcome=verdict.outcome,
            kernel=assign.kernel,
            params_digest=digests.of_params(assign.params),
            inputs_digest=digests.of_inputs(assign.inputs),
            links=self.chain.links,
            units_done=self.chain.units,
            head=self.chain.head,
            claimed_ms=self.chain.claimed_ms,
            started_ms=self.started_ms,
            finished_ms=max(finished_ms, self.started_ms),
            backend=assign.backend,
            device_id=assign.device_id,
            failure=_failure(verdict) if failed else None,
        )


def _failure(verdict: rules.Verdict) -> Failure:
    """In text that can be sent: a kernel's own words may hold anything."""
    return Failure(code=verdict.code[:200], detail=verdict.detail.replace("\0", "")[:1000])


def restored(saved: Saved, now_ms: int) -> Work:
    """As the journal has it, before it is decided what becomes of it."""
    assign = saved.taken.assign
    work = Work(assign, saved.taken.started_ms, now_ms)
    for made in saved.links:
        work.chain.add(made.link)
    phase = rules.Phase.RECEIVED if saved.report is None else rules.Phase.REPORTED
    work.attempt = rules.Attempt(phase, assign.fence)
    return work
