# SPDX-License-Identifier: Apache-2.0
"""Disputes as they appear on a wire (`/api/v1/disputes`): about one attempt, between consumer and provider."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from qubix_protocol.api import Body, HexDigest, View
from qubix_protocol.messages import Id, Peer
from qubix_protocol.units import QU_MAX

STATEMENT_MAX = 4_000
DIGESTS_MAX = 32
Words = Annotated[str, Meta(min_length=1, max_length=STATEMENT_MAX)]
Digests = Annotated[tuple[HexDigest, ...], Meta(max_length=DIGESTS_MAX)]


class DisputeState(StrEnum):
    OPENED = "opened"
    """The other side has its say."""
    RERUNNING = "rerunning"
    """The disputed units run again elsewhere, or are checked anew."""
    JUDGING = "judging"
    """The evidence is here; an arbiter may decide until the deadline."""
    RESOLVED = "resolved"


class Side(StrEnum):
    CONSUMER = "consumer"
    PROVIDER = "provider"


class Finding(StrEnum):
    """What the second look at the disputed units says."""

    NONE = "none"
    UPHELD = "upheld"
    """The disputed result stands."""
    REFUTED = "refuted"
    UNDECIDABLE = "undecidable"


class Outcome(StrEnum):
    CONCEDED = "conceded"
    DEFAULTED = "defaulted"
    WITHDRAWN = "withdrawn"
    UPHELD = "upheld"
    REFUTED = "refuted"
    UNDECIDABLE = "undecidable"
    DECIDED = "decided"


OUTCOME_TEXT: dict[Outcome, str] = {
    Outcome.CONCEDED: "the other side agreed",
    Outcome.DEFAULTED: "the other side did not answer in time",
    Outcome.WITHDRAWN: "withdrawn by who opened it",
    Outcome.UPHELD: "no arbiter decided in time, and the second look upheld the result",
    Outcome.REFUTED: "no arbiter decided in time, and the second look refuted the result",
    Outcome.UNDECIDABLE: "no arbiter decided in time, and there was nothing to compare with: refunded less the bond",
    Outcome.DECIDED: "decided by an arbiter",
}


class DisputeBody(Body, frozen=True, kw_only=True):
    """`POST /disputes`. `attempt`: its fence, where a job has several that could be meant."""

    job_id: Id
    attempt: Annotated[int, Meta(ge=1)] | None = None
    statement: Words
    digests: Digests = ()


class AnswerBody(Body, frozen=True, kw_only=True):
    """`POST /disputes/{id}/answer`. `concede`: the opener is right. `bond`: as much as the opener's is staked, too."""

    statement: Words
    digests: Digests = ()
    concede: bool = False
    bond: bool = False


class EvidenceBody(Body, frozen=True, kw_only=True):
    """`POST /disputes/{id}/evidence`."""

    statement: Words
    digests: Digests = ()


class DecisionBody(Body, frozen=True, kw_only=True):
    """`POST /disputes/{id}/decide` (arbiters): so much of what is at stake goes to the side that opened it."""

    award_qu: Annotated[int, Meta(ge=0, le=QU_MAX)]
    reason: Words


class DisputeStepView(View, frozen=True, kw_only=True):
    """One line of the timeline. `by`: consumer, provider, arbiter, market."""

    at_ms: int
    by: str
    what: str
    text: str = ""
    digests: tuple[HexDigest, ...] = ()


class LinkView(View, frozen=True, kw_only=True):
    start: int
    stop: int
    output: HexDigest
    chain: HexDigest
    heard_ms: int
    good: bool | None


class EvidenceView(View, frozen=True, kw_only=True):
    """What the market itself kept of the attempt. `order`, `report` and `settlement`: hex of what was signed; `late`:
    messages that came after its end."""

    kernel: str
    params_digest: HexDigest
    inputs_digest: HexDigest
    order: str
    report: str
    settlement: str
    links: tuple[LinkView, ...]
    verdict: str
    verdict_reason: str
    verdict_detail: str
    claimed_ms: int
    observed_ms: int
    billed_ms: int
    forecast_ms: int
    late: int
    ended: str
    readings: int = 0
    utilisation_mean: float | None = None
    second_look: str = ""
    rerun_by: Peer | None = None


class DisputeView(View, frozen=True, kw_only=True):
    """Both sides and arbiters see the same. `you`: consumer, provider or arbiter."""

    dispute_id: Id
    job_id: Id
    attempt_id: Id
    attempt: int
    provider: Peer
    state: DisputeState
    opened_by: Side
    you: str
    stake_qu: int
    bond_qu: int
    answer_bond_qu: int
    rerun_cost_qu: int
    finding: Finding
    outcome: Outcome | None
    outcome_text: str
    award_qu: int
    awarded_from: dict[str, int]
    """Where the award came from: hold, provider, fees, fund; what nobody could pay is `unpaid`."""
    arbiters_needed: int
    opened_ms: int
    due_ms: int | None
    """When the state's default outcome comes by itself."""
    resolved_ms: int | None
    steps: tuple[DisputeStepView, ...]
    evidence: EvidenceView
    revision: int


class DisputableView(View, frozen=True, kw_only=True):
    """An attempt that can be disputed now, and what that takes: `bond_qu` is staked for the chance of `stake_qu`."""

    attempt: int
    provider: Peer
    model: str
    stake_qu: int
    bond_qu: int
    until_ms: int | None
    """None: while another dispute of the same job is open."""


class JobDisputeView(View, frozen=True, kw_only=True):
    dispute_id: Id
    attempt: int
    state: DisputeState
    opened_by: Side
    outcome: Outcome | None
    opened_ms: int
    due_ms: int | None


class JobDisputesView(View, frozen=True, kw_only=True):
    """`GET /jobs/{id}/disputes`, for both sides. `why`: where nothing can be disputed, what keeps it from that."""

    job_id: Id
    side: Side
    disputable: tuple[DisputableView, ...]
    why: str
    disputes: tuple[JobDisputeView, ...]


class DisputesView(View, frozen=True, kw_only=True):
    disputes: tuple[DisputeView, ...]
    next: str | None = None
