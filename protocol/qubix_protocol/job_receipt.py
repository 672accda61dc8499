# SPDX-License-Identifier: Apache-2.0
"""A job's receipt: what its chain says, and the proof that it adds up. Needs public keys and nothing else.

Three hands sign: the consumer the order, each node its links and its report, the coordinator every entry (what it took,
decided and paid). `prove` checks the signatures, that each entry follows from the ones before it, and does the sums of
the money again from rates, times and verdicts. docs/receipts.md tells it in full.
"""

import hashlib
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from qubix_protocol import chain, charges, digests
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.chain import Entry, Statement
from qubix_protocol.envelope import ANYONE, Opened, read_evidence
from qubix_protocol.errors import Malformed, NotGenuine
from qubix_protocol.keys import public_key_of
from qubix_protocol.messages import (
    Amount,
    Count,
    Digest,
    Id,
    InputRef,
    Link,
    Millis,
    Name,
    Order,
    Params,
    Peer,
    Progress,
    Range,
    Rate,
    Report,
    Settlement,
    Short,
    Text,
    Units,
)
from qubix_protocol.receipts import REFUTED
from qubix_protocol.states import FINAL_JOB_STATES, JobState, Reason
from qubix_protocol.units import CHUNKS_MAX, INPUTS_MAX, SPREAD_MAX, Network

KIND: Final = "job"
Envelope = Annotated[bytes, Meta(max_length=256 * 1024)]
_SEED_CONTEXT: Final = b"qubix/check-seed/1\0"


def check_seed(attempt_id: str, head: bytes, entropy: bytes) -> bytes:
    """What a check's random choices come from. It hangs on the head of the chain, hence on every output that is
    checked: whoever made them could not know it, since it did not exist before they were committed (trust.md C1)."""
    return hashlib.sha256(_SEED_CONTEXT + attempt_id.encode() + b"\0" + head + entropy).digest()


# What the entries say -----------------------------------------------------------------------------------------------


class Output(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Name
    meta: ArrayMeta


class JobOpened(Statement, frozen=True, kw_only=True, tag="opened"):
    """The job as it was submitted, and its hold. `order` is the consumer's signed order; empty where none was sent."""

    kernel: Name
    kernel_version: Annotated[int, Meta(ge=1, le=2**31)]
    params: Params
    params_digest: Digest
    inputs: Annotated[tuple[InputRef, ...], Meta(max_length=INPUTS_MAX)]
    inputs_digest: Digest
    outputs: Annotated[tuple[Output, ...], Meta(max_length=INPUTS_MAX)]
    units: Annotated[int, Meta(ge=1)]
    hold_qu: Amount
    rental: Id | None
    """The rental that it runs on: then there is no hold, and nothing is paid but the rental's own time."""
    rate_qu_per_h_max: Rate | None
    provider: Peer | None
    hands_max: Annotated[int, Meta(ge=1, le=SPREAD_MAX)]
    has_verifier: bool
    """False: nothing judges its results but their form; they are paid by the consumer's word or for want of it."""
    deadline_ms: Millis
    order: Envelope
    units_whole: Annotated[int, Meta(ge=1)] | None = None
    """Of the job some of whose units it runs again."""


class AttemptAssigned(Statement, frozen=True, kw_only=True, tag="assigned"):
    """An attempt and its terms, frozen."""

    attempt_id: Id
    fence: Annotated[int, Meta(ge=1)]
    provider: Peer
    device_id: Short
    model: Short
    backend: Name
    rate_qu_per_h: Rate
    offer_digest: Digest
    fee_bps: Annotated[int, Meta(ge=0, le=charges.BPS)]
    ranges: Annotated[tuple[Range, ...], Meta(min_length=1, max_length=CHUNKS_MAX)]
    units: Annotated[int, Meta(ge=1)]
    forecast_ms: Annotated[int, Meta(ge=1)]
    time_limit_ms: Millis


class LinkTaken(Statement, frozen=True, kw_only=True, tag="linked"):
    """A chunk's checkpoint, as the node signed it. `observed_ms`: since the attempt was accepted, by the meter."""

    attempt_id: Id
    progress: Envelope
    observed_ms: Millis


class ReportTaken(Statement, frozen=True, kw_only=True, tag="reported"):
    """What the node signed about its whole attempt."""

    attempt_id: Id
    report: Envelope


class AttemptEnded(Statement, frozen=True, kw_only=True, tag="ended"):
    """No more links are taken: `head` commits to every output. A check's randomness is drawn after this."""

    attempt_id: Id
    reason: Reason
    detail: Text
    links: Count
    units_done: Units
    head: Digest


class AttemptChecked(Statement, frozen=True, kw_only=True, tag="checked"):
    """The verdict on each link, and the randomness that was drawn for it. From here on the good links are owed."""

    attempt_id: Id
    carried_out: bool
    parts: Annotated[tuple[bool, ...], Meta(max_length=CHUNKS_MAX)]
    entropy: Annotated[bytes, Meta(max_length=64)]


class AttemptSettled(Statement, frozen=True, kw_only=True, tag="settled"):
    """What became of what is owed, as the coordinator signed it to the node: at once where a verifier judged the
    result, else by the consumer's word, when the acceptance window ended, or as a dispute was decided."""

    attempt_id: Id
    settlement: Envelope


class JobClosed(Statement, frozen=True, kw_only=True, tag="closed"):
    """How the job ended and what became of the hold."""

    state: JobState
    reason: Reason
    detail: Text
    units_accepted: Units
    attempts: Count
    hold_qu: Amount
    paid_qu: Amount
    fee_qu: Amount
    returned_qu: Amount


STATEMENTS: Final[dict[str, type[Statement]]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        JobOpened,
        AttemptAssigned,
        LinkTaken,
        ReportTaken,
        AttemptEnded,
        AttemptChecked,
        AttemptSettled,
        JobClosed,
    )
}


# What a reader gets -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """A chunk as the node signed it. `paid` once it was accepted and settled."""

    link: Link
    observed_ms: int
    taken_ms: int
    paid: bool = False


@dataclass(slots=True)
class AttemptProof:
    terms: AttemptAssigned
    assigned_ms: int
    parts: list[Part] = field(default_factory=list)
    report: Report | None = None
    report_digest: bytes = digests.ZERO
    refuted: bool = False
    """By a spot check."""
    ended: AttemptEnded | None = None
    verdict: AttemptChecked | None = None
    good: int = 0
    billed_ms: int = 0
    owed_qu: int = 0
    settlement: Settlement | None = None

    @property
    def head(self) -> bytes:
        return digests.of_link(self.parts[-1].link) if self.parts else digests.ZERO

    @property
    def seed(self) -> bytes | None:
        """What the check's random choices came from; None where nothing was drawn."""
        if self.verdict is None or not self.verdict.entropy:
            return None
        return check_seed(self.terms.attempt_id, self.head, self.verdict.entropy)


@dataclass(slots=True)
class JobProof:
    """A receipt that holds. `order_key` is the consumer's; None: the job came without a signed order."""

    network: Network
    job_id: str
    coordinator_keys: tuple[bytes, ...]
    opened: JobOpened
    opened_ms: int
    order_key: bytes | None
    attempts: list[AttemptProof] = field(default_factory=list)
    closed: JobClosed | None = None
    closed_ms: int | None = None
    as_of_ms: int = 0
    entries: int = 0

    @property
    def paid_qu(self) -> int:
        return sum(one.settlement.paid_qu for one in self.attempts if one.settlement)

    @property
    def fee_qu(self) -> int:
        return sum(one.settlement.fee_qu for one in self.attempts if one.settlement)

    @property
    def owed_qu(self) -> int:
        """Not paid yet, for results that are here."""
        return sum(one.owed_qu for one in self.attempts if not one.settlement)

    @property
    def hold_left_qu(self) -> int:
        return self.opened.hold_qu - self.paid_qu - self.fee_qu

    def paid_parts(self) -> list[Part]:
        """In the order of their units."""
        paid = [part for one in self.attempts for part in one.parts if part.paid]
        return sorted(paid, key=lambda part: part.link.units.start)


def prove(entries: Sequence[bytes], end: bytes, *, coordinator_keys: Collection[bytes]) -> JobProof:
    """The whole proof. Raises `ProtocolError` with what does not hold.

    A job that is not over has no `closed`: the receipt then holds as of `as_of_ms`.
    """
    read = chain.read(entries, end, signers=coordinator_keys, kind=KIND)
    return _Reader(read, tuple(coordinator_keys)).proof()


class _Reader:
    """Takes entry after entry; each must follow from those before."""

    def __init__(self, read: chain.Read, keys: tuple[bytes, ...]) -> None:
        self._read, self._keys = read, keys
        self._attempts: dict[str, AttemptProof] = {}
        self._made: list[Range] = []

    def proof(self) -> JobProof:
        first, *rest = self._read.entries
        if first.header.entry != "opened":
            raise NotGenuine("the first entry does not open the job")
        self._job = self._open(first)
        for entry in rest:
            self._take(entry)
        return self._job

    def _open(self, entry: Entry) -> JobProof:
        opened = entry.body(JobOpened)
        if (opened.hold_qu == 0) != (opened.rental is not None):
            raise NotGenuine("a job has a hold, or a rental that it runs on")
        if digests.of_params(opened.params) != opened.params_digest:
            raise NotGenuine("the parameters are not those of their digest")
        if digests.of_inputs(opened.inputs) != opened.inputs_digest:
            raise NotGenuine("the inputs are not those of their digest")
        signers = {one.header.signer for one in self._read.entries} | {self._read.end.signer}
        return JobProof(
            network=self._read.chain.network,
            job_id=self._read.chain.id,
            coordinator_keys=tuple(sorted(signers)),
            opened=opened,
            opened_ms=entry.header.at_ms,
            order_key=self._check_order(opened) if opened.order else None,
            as_of_ms=self._read.end.at_ms,
            entries=len(self._read.entries),
        )

    def _check_order(self, opened: JobOpened) -> bytes:
        """Whose key signed it is told, not judged: the reader knows the consumer's, or does not."""
        header, order = self._evidence(opened.order, None)
        said = order.body(Order)
        wanted = (opened.kernel, opened.params_digest, opened.inputs_digest, opened.hold_qu, opened.rate_qu_per_h_max)
        if (said.kernel, said.params_digest, said.inputs_digest, said.cap_qu, said.rate_qu_per_h_max) != wanted:
            raise NotGenuine("the consumer's order is for another job than this")
        if said.rental != opened.rental:
            raise NotGenuine("the consumer's order is for another rental, or for none")
        return header

    def _evidence(self, raw: bytes, sender: bytes | None) -> tuple[bytes, Opened]:
        opened = read_evidence(raw, network=self._read.chain.network, sender=sender)
        if opened.header.audience not in (*self._keys, ANYONE):
            raise NotGenuine("a statement inside the receipt is meant for another coordinator")
        return opened.header.sender, opened

    def _take(self, entry: Entry) -> None:
        name = entry.header.entry
        if self._job.closed is not None:
            raise NotGenuine(f"entry {entry.header.index} ({name}) comes after the job was closed")
        if name == "assigned":
            self._assigned(entry)
        elif name == "closed":
            self._closed(entry)
        elif name in ("linked", "reported", "ended", "checked", "settled"):
            getattr(self, f"_{name}")(entry)
        else:
            raise Malformed(f"entry {entry.header.index} is a {name!r}, which no job's receipt has here")

    def _assigned(self, entry: Entry) -> None:
        terms, job = entry.body(AttemptAssigned), self._job
        public_key_of(terms.provider)
        if terms.fence != len(job.attempts) + 1 or terms.attempt_id in self._attempts:
            raise NotGenuine(f"attempt {terms.attempt_id} is not the next of the job")
        if sum(one.units for one in terms.ranges) != terms.units or any(one.units <= 0 for one in terms.ranges):
            raise NotGenuine(f"attempt {terms.attempt_id} has another number of units than its ranges")
        if job.opened.provider not in (None, terms.provider):
            raise NotGenuine("the job was given to another provider than the one it asked for")
        if job.opened.rate_qu_per_h_max is not None and terms.rate_qu_per_h > job.opened.rate_qu_per_h_max:
            raise NotGenuine("an attempt's rate is above the highest that the consumer agreed to")
        open_now = [one for attempt in job.attempts if _in_hand(attempt) for one in attempt.terms.ranges]
        self._refuse_overlap(terms.ranges, [*open_now, *self._made], "assigned")
        attempt = AttemptProof(terms, entry.header.at_ms)
        job.attempts.append(attempt)
        self._attempts[terms.attempt_id] = attempt

    def _refuse_overlap(self, ranges: Collection[Range], taken: Collection[Range], what: str) -> None:
        edges = sorted((one.start, one.stop) for one in (*ranges, *taken))
        if any(before[1] > after[0] for before, after in itertools.pairwise(edges)):
            raise NotGenuine(f"a unit of the job is {what} twice")
        if edges and edges[-1][1] > (self._job.opened.units_whole or self._job.opened.units):
            raise NotGenuine("units beyond the job's last one")

    def _attempt(self, attempt_id: str) -> AttemptProof:
        found = self._attempts.get(attempt_id)
        if found is None:
            raise NotGenuine(f"attempt {attempt_id} was never assigned")
        if found.settlement is not None:
            raise NotGenuine(f"attempt {attempt_id} was settled before")
        return found

    def _linked(self, entry: Entry) -> None:
        taken = entry.body(LinkTaken)
        attempt = self._attempt(taken.attempt_id)
        _, opened = self._evidence(taken.progress, public_key_of(attempt.terms.provider))
        said = opened.body(Progress)
        link = said.link
        if link is None or (said.attempt_id, said.fence) != (taken.attempt_id, attempt.terms.fence):
            raise NotGenuine("a link is of another attempt")
        if attempt.ended is not None or (link.index, link.predecessor) != (len(attempt.parts), attempt.head):
            raise NotGenuine(f"link {link.index} does not follow the attempt's links before it")
        done = sum(part.link.units.units for part in attempt.parts)
        allowed = _next_range(attempt.terms.ranges, done)
        if link.units.start != allowed.start or not allowed.start < link.units.stop <= allowed.stop:
            raise NotGenuine(f"link {link.index} is of units that were not assigned next")
        if attempt.parts and taken.observed_ms < attempt.parts[-1].observed_ms:
            raise NotGenuine("the meter of an attempt ran backwards")
        attempt.parts.append(Part(link, taken.observed_ms, entry.header.at_ms))

    def _reported(self, entry: Entry) -> None:
        taken = entry.body(ReportTaken)
        attempt = self._attempt(taken.attempt_id)
        _, opened = self._evidence(taken.report, public_key_of(attempt.terms.provider))
        report, job = opened.body(Report), self._job
        about = (report.job_id, report.attempt_id, report.fence, report.kernel)
        if attempt.report is not None or about != (
            job.job_id,
            taken.attempt_id,
            attempt.terms.fence,
            job.opened.kernel,
        ):
            raise NotGenuine("a report is of other work, or the second of its attempt")
        if (report.params_digest, report.inputs_digest) != (job.opened.params_digest, job.opened.inputs_digest):
            raise NotGenuine("a report is about other parameters or inputs")
        if (report.links, report.head) != (len(attempt.parts), attempt.head):
            raise NotGenuine("a report counts other links than the attempt has")
        attempt.report, attempt.report_digest = report, digests.of_bytes(taken.report)

    def _ended(self, entry: Entry) -> None:
        ended = entry.body(AttemptEnded)
        attempt = self._attempt(ended.attempt_id)
        if attempt.ended is not None:
            raise NotGenuine(f"attempt {ended.attempt_id} ended before")
        done = sum(part.link.units.units for part in attempt.parts)
        if (ended.links, ended.units_done, ended.head) != (len(attempt.parts), done, attempt.head):
            raise NotGenuine("an attempt ended with other links than it has")
        attempt.ended = ended

    def _checked(self, entry: Entry) -> None:
        checked = entry.body(AttemptChecked)
        attempt, job = self._attempt(checked.attempt_id), self._job
        if attempt.ended is None or not attempt.parts or attempt.verdict is not None:
            raise NotGenuine("an attempt was checked twice, or before its outputs were committed")
        good = _accepted(attempt.parts, checked)
        chunks = [charges.Chunk(one.link.units.units, one.link.claimed_ms, one.observed_ms) for one in good]
        terms = attempt.terms
        billed = charges.billed_ms(chunks, forecast_ms=terms.forecast_ms, attempt_units=terms.units)
        spare_qu = job.hold_left_qu - job.owed_qu
        units = sum(chunk.units for chunk in chunks)
        attempt.owed_qu = charges.charge_qu(terms.rate_qu_per_h, billed, units=units, hold_left_qu=spare_qu)
        attempt.verdict, attempt.good, attempt.billed_ms = checked, len(good), billed
        made = [one.link.units for one in good]
        self._refuse_overlap(made, self._made, "accepted")
        self._made += made

    def _settled(self, entry: Entry) -> None:
        settled = entry.body(AttemptSettled)
        attempt, job = self._attempt(settled.attempt_id), self._job
        if attempt.verdict is None:
            raise NotGenuine("an attempt was settled before it was checked")
        said = read_evidence(settled.settlement, network=job.network, sender=entry.header.signer).body(Settlement)
        terms, charge = attempt.terms, said.paid_qu + said.fee_qu
        if charge > attempt.owed_qu or (job.opened.has_verifier and charge != attempt.owed_qu):
            raise NotGenuine(
                f"attempt {terms.attempt_id} is owed {attempt.owed_qu} QU by the verdict, paid were {charge}"
            )
        nothing = not job.opened.has_verifier and charge == 0
        good = 0 if nothing else attempt.good
        split = charges.split_fee(charge, terms.fee_bps)
        expected = Settlement(
            network=job.network,
            job_id=job.job_id,
            attempt_id=terms.attempt_id,
            provider=terms.provider,
            report_digest=attempt.report_digest,
            head=attempt.head,
            units_accepted=sum(part.link.units.units for part in attempt.parts[:good]),
            units_total=job.opened.units,
            verdict=said.verdict,
            verdict_detail=said.verdict_detail,
            check_ms=said.check_ms,
            run_ms=sum(part.link.claimed_ms for part in attempt.parts),
            billed_ms=attempt.billed_ms,
            rate_qu_per_h=terms.rate_qu_per_h,
            paid_qu=split.paid_qu,
            fee_qu=split.fee_qu,
            decided_ms=said.decided_ms,
        )
        if said != expected:
            raise NotGenuine(f"the settlement of attempt {terms.attempt_id} does not follow from its terms and links")
        words = ("accepted", "rejected", REFUTED) if attempt.verdict.carried_out else ("unchecked",)
        if said.verdict == REFUTED:
            self._refute(attempt, nothing=nothing)
        if said.verdict not in words or (said.verdict == "accepted" and good != len(attempt.parts)):
            raise NotGenuine(f"the verdict on attempt {terms.attempt_id} is not what was found")
        attempt.parts = [replace(one, paid=at < good) for at, one in enumerate(attempt.parts)]
        attempt.settlement = said

    def _refute(self, attempt: AttemptProof, *, nothing: bool) -> None:
        """Its units are nobody's again: somebody else makes them."""
        if not nothing:
            raise NotGenuine(f"attempt {attempt.terms.attempt_id} was refuted and paid, or had a verifier")
        mine = [part.link.units for part in attempt.parts[: attempt.good]]
        self._made = [one for one in self._made if one not in mine]
        attempt.refuted = True

    def _closed(self, entry: Entry) -> None:
        closed, job = entry.body(JobClosed), self._job
        if any(_open_still(one) for one in job.attempts):
            raise NotGenuine("the job was closed while an attempt was open")
        units = sum(one.units for one in self._made)
        sums = (units, len(job.attempts), job.opened.hold_qu, job.paid_qu, job.fee_qu, job.hold_left_qu)
        if sums != (
            closed.units_accepted,
            closed.attempts,
            closed.hold_qu,
            closed.paid_qu,
            closed.fee_qu,
            closed.returned_qu,
        ):
            raise NotGenuine("the closing sums are not those of the attempts")
        if closed.state not in FINAL_JOB_STATES:
            raise NotGenuine("the job was closed in a state that is not final")
        if closed.state is JobState.SETTLED and units != job.opened.units:
            raise NotGenuine("a job was settled without all its units")
        decided = closed.state is JobState.RESOLVED
        less = [one for one in job.attempts if one.settlement and _paid(one.settlement) < one.owed_qu]
        if any(not one.refuted for one in less):
            if not decided:
                raise NotGenuine("less was paid than was owed, and nothing was decided")
        elif decided and job.opened.has_verifier:
            raise NotGenuine("a job with a verifier is not decided by a dispute")
        job.closed, job.closed_ms = closed, entry.header.at_ms


def _paid(said: Settlement) -> int:
    return said.paid_qu + said.fee_qu


def _open_still(attempt: AttemptProof) -> bool:
    """Until it ended without a link, or was settled."""
    return attempt.ended is None or (bool(attempt.parts) and attempt.settlement is None)


def _in_hand(attempt: AttemptProof) -> bool:
    """Its units are nobody else's until it ended without a link, or was checked."""
    return _open_still(attempt) and attempt.verdict is None


def _accepted(parts: Sequence[Part], settled: AttemptChecked) -> list[Part]:
    """The links before the first bad one (trust.md M3)."""
    if not settled.carried_out:
        if settled.parts:
            raise NotGenuine("a check that was not carried out found something")
        return []
    if len(settled.parts) != len(parts):
        raise NotGenuine("a verdict for another number of links")
    good = 0
    while good < len(parts) and settled.parts[good]:
        good += 1
    return list(parts[:good])


def _next_range(ranges: Sequence[Range], done: int) -> Range:
    for one in ranges:
        if done < one.units:
            return Range(one.start + done, one.stop)
        done -= one.units
    return Range(0, 0)
