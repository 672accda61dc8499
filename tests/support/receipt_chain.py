# SPDX-License-Identifier: Apache-2.0
"""A job's receipt as consumer, nodes and coordinator would have signed it, without a market."""

import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from qubix_protocol import chain, charges, digests
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.chain import Chain, Place, Statement
from qubix_protocol.envelope import seal
from qubix_protocol.job_receipt import (
    KIND,
    AttemptAssigned,
    AttemptChecked,
    AttemptEnded,
    AttemptSettled,
    JobClosed,
    JobOpened,
    LinkTaken,
    Output,
    ReportTaken,
)
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import InputRef, Link, Message, Order, Progress, Range, Report, Settlement
from qubix_protocol.states import JobState, Outcome, Reason

RATE = 100_800
HOLD_QU = 100
FEE_BPS = 400
MS = 1_000
"""Claimed, observed and forecast for a whole attempt."""
META = ArrayMeta("float32", (4, 4))


@dataclass
class Story:
    """One job from its order to its end. `entries` and `end` are what a receipt's file holds."""

    coordinator: SigningKey = field(default_factory=SigningKey.generate)
    consumer: SigningKey | None = field(default_factory=SigningKey.generate)
    provider: SigningKey = field(default_factory=SigningKey.generate)
    job_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    hold_qu: int = HOLD_QU
    units: int = 4
    entries: list[bytes] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    end: bytes = b""
    at_ms: int = 1_000_000
    paid_qu: int = 0
    fee_qu: int = 0
    accepted: int = 0
    attempts: int = 0
    _count: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    @property
    def chain(self) -> Chain:
        return Chain("devnet", KIND, self.job_id)

    @property
    def file(self) -> bytes:
        return chain.to_file(self.entries, self.end)

    def say(self, statement: Statement) -> None:
        self.at_ms += 10
        before = chain.digest_of(self.entries[-1]) if self.entries else chain.START
        place = Place(len(self.entries), before)
        self.entries.append(chain.seal_entry(self.chain, place, statement, self.coordinator, self.at_ms))
        self.statements.append(statement)
        self.end = chain.seal_end(self.chain, self.entries, self.coordinator, self.at_ms)

    def sealed(self, key: SigningKey, message: Message) -> bytes:
        return seal(
            message,
            key,
            network="devnet",
            audience=self.coordinator.public,
            incarnation=1,
            counter=next(self._count),
            expires_ms=self.at_ms + 60_000,
        )

    def opened(self) -> "Story":
        inputs = (
            InputRef(name="a", digest=bytes([1] * 32), size_bytes=192, meta=META),
            InputRef(name="b", digest=bytes([2] * 32), size_bytes=192, meta=META),
        )
        self.params_digest, self.inputs_digest = digests.of_params({}), digests.of_inputs(inputs)
        order = Order(
            idempotency_key="one",
            kernel="matmul",
            params_digest=self.params_digest,
            inputs_digest=self.inputs_digest,
            cap_qu=self.hold_qu,
            rate_qu_per_h_max=None,
        )
        self.say(
            JobOpened(
                kernel="matmul",
                kernel_version=1,
                params={},
                params_digest=self.params_digest,
                inputs=inputs,
                inputs_digest=self.inputs_digest,
                outputs=(Output(name="c", meta=ArrayMeta("float32", (self.units, 4))),),
                units=self.units,
                hold_qu=self.hold_qu,
                rate_qu_per_h_max=None,
                provider=None,
                hands_max=1,
                has_verifier=True,
                rental=None,
                deadline_ms=2_000_000,
                order=self.sealed(self.consumer, order) if self.consumer else b"",
            )
        )
        return self

    def attempt(
        self,
        outputs: Sequence[tuple[int, int, bytes]],
        *,
        ranges: Sequence[tuple[int, int]] = (),
        attempt_id: str = "",
        bad: int = 0,
        report: bool = True,
        check_ms: int = 20,
    ) -> "Story":
        """One attempt with these chunks (start, stop, content), of which the last `bad` fail their check."""
        self.attempts += 1
        mine = attempt_id or str(uuid.uuid4())
        dealt = [Range(*pair) for pair in ranges or [(outputs[0][0], outputs[-1][1])]]
        units = sum(one.units for one in dealt)
        self.say(
            AttemptAssigned(
                attempt_id=mine,
                fence=self.attempts,
                provider=self.provider.peer_id,
                device_id="cpu-1",
                model="test device",
                backend="cpu",
                rate_qu_per_h=RATE,
                offer_digest=bytes([3] * 32),
                fee_bps=FEE_BPS,
                ranges=tuple(dealt),
                units=units,
                forecast_ms=MS,
                time_limit_ms=10 * MS,
            )
        )
        links = self._links(mine, outputs)
        head = digests.of_link(links[-1]) if links else digests.ZERO
        raw = b""
        if report:
            raw = self._report(mine, links, head)
            self.say(ReportTaken(attempt_id=mine, report=raw))
        done = sum(link.units.units for link in links)
        self.say(
            AttemptEnded(
                attempt_id=mine, reason=Reason.COMPLETED, detail="", links=len(links), units_done=done, head=head
            )
        )
        if links:
            self._settled(mine, links, len(links) - bad, units, raw, check_ms)
        return self

    def _links(self, attempt_id: str, outputs: Sequence[tuple[int, int, bytes]]) -> list[Link]:
        links, head = list[Link](), digests.ZERO
        for index, (start, stop, content) in enumerate(outputs):
            link = Link(
                index=index,
                units=Range(start, stop),
                output_digest=digests.of_bytes(content),
                output_bytes=len(content),
                claimed_ms=MS // len(outputs),
                predecessor=head,
            )
            progress = Progress(attempt_id=attempt_id, fence=self.attempts, fraction=0.5, elapsed_ms=1, link=link)
            observed = MS * (index + 1)
            raw = self.sealed(self.provider, progress)
            self.say(LinkTaken(attempt_id=attempt_id, progress=raw, observed_ms=observed))
            links.append(link)
            head = digests.of_link(link)
        return links

    def _report(self, attempt_id: str, links: Sequence[Link], head: bytes) -> bytes:
        report = Report(
            job_id=self.job_id,
            attempt_id=attempt_id,
            fence=self.attempts,
            outcome=Outcome.COMPLETED,
            kernel="matmul",
            params_digest=self.params_digest,
            inputs_digest=self.inputs_digest,
            links=len(links),
            units_done=sum(link.units.units for link in links),
            head=head,
            claimed_ms=sum(link.claimed_ms for link in links),
            started_ms=1,
            finished_ms=2,
            backend="cpu",
            device_id="cpu-1",
        )
        return self.sealed(self.provider, report)

    def _settled(
        self, attempt_id: str, links: Sequence[Link], good: int, units: int, report: bytes, check_ms: int
    ) -> None:
        chunks = [charges.Chunk(one.units.units, one.claimed_ms, MS * (one.index + 1)) for one in links[:good]]
        accepted = sum(chunk.units for chunk in chunks)
        billed = charges.billed_ms(chunks, forecast_ms=MS, attempt_units=units)
        left = self.hold_qu - self.paid_qu - self.fee_qu
        split = charges.split_fee(charges.charge_qu(RATE, billed, units=accepted, hold_left_qu=left), FEE_BPS)
        statement = Settlement(
            network="devnet",
            job_id=self.job_id,
            attempt_id=attempt_id,
            provider=self.provider.peer_id,
            report_digest=digests.of_bytes(report) if report else digests.ZERO,
            head=digests.of_link(links[-1]),
            units_accepted=accepted,
            units_total=self.units,
            verdict="accepted" if good == len(links) else "rejected",
            check_ms=check_ms,
            run_ms=sum(link.claimed_ms for link in links),
            billed_ms=billed,
            rate_qu_per_h=RATE,
            paid_qu=split.paid_qu,
            fee_qu=split.fee_qu,
            decided_ms=self.at_ms,
        )
        self.paid_qu += split.paid_qu
        self.fee_qu += split.fee_qu
        self.accepted += accepted
        self.say(
            AttemptChecked(
                attempt_id=attempt_id,
                carried_out=True,
                parts=(True,) * good + (False,) * (len(links) - good),
                entropy=bytes([7] * 32),
            )
        )
        self.say(AttemptSettled(attempt_id=attempt_id, settlement=self.sealed(self.coordinator, statement)))

    def closed(self) -> "Story":
        whole = self.accepted == self.units
        self.say(
            JobClosed(
                state=JobState.SETTLED if whole else JobState.FAILED,
                reason=Reason.COMPLETED if whole else Reason.EXPIRED,
                detail="",
                units_accepted=self.accepted,
                attempts=self.attempts,
                hold_qu=self.hold_qu,
                paid_qu=self.paid_qu,
                fee_qu=self.fee_qu,
                returned_qu=self.hold_qu - self.paid_qu - self.fee_qu,
            )
        )
        return self
