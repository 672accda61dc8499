# SPDX-License-Identifier: Apache-2.0
"""Bodies of the HTTP API under `/api/v1`, shared by the coordinator and the SDK. JSON; digests and keys are hex text.

Amounts are whole QU. Times are milliseconds since the epoch by the coordinator's clock.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.messages import Id, Name, ParamValue, Peer, Rate, Sample, Short, Text
from qubix_protocol.states import AttemptState, Availability, DeviceKind, Isolation, JobState, Reason
from qubix_protocol.units import INPUTS_MAX, PARAMS_MAX, QU_MAX, SPREAD_MAX, Network

HexDigest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
HexKey = HexDigest
QueryText = Annotated[str, Meta(max_length=2000)]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of request bodies: unknown fields are refused, so a misspelt one is never ignored."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of answers: readers ignore fields that they do not know yet."""


# Errors: RFC 9457 ---------------------------------------------------------------------------------------------------


class Problem(View, frozen=True, kw_only=True, omit_defaults=True):
    """`code` is constant; `field` names what was wrong with the request; `remedy` is what to do next."""

    type: str
    title: str
    status: int
    code: str
    detail: str = ""
    remedy: str = ""
    field: str = ""
    column: int | None = None
    """Of a query line: where it is wrong, counted from 1, and for how many characters."""
    length: int | None = None
    instance: str = ""
    problems: tuple["FieldProblem", ...] = ()


class FieldProblem(View, frozen=True, kw_only=True):
    field: str
    problem: str
    remedy: str = ""


# The network --------------------------------------------------------------------------------------------------------


class NetworkView(View, frozen=True, kw_only=True):
    """`GET /network`, without a token: what a node or client pins."""

    network: Network
    coordinator_key: HexKey
    protocol_version: int
    fee_bps: int
    gateways: tuple[str, ...]
    """Multiaddrs of the gateways connected now."""
    regions: tuple[str, ...]
    relays: tuple[str, ...] = ()
    """Some of the nodes that pass their region's offers on, as multiaddrs."""
    clock_ms: int
    fallback_adapters: bool = False
    """Whether software in a GPU's place may be offered: on test markets alone."""
    walletconnect_project_id: str = ""
    """What clients start WalletConnect with; "": it is not offered."""
    walletconnect_relay: str = ""
    walletconnect_chain: str = ""
    walletconnect_pays: bool = False
    """Whether wallets of that chain may be asked to pay: theirs is this market's money."""


class EnrolView(View, frozen=True, kw_only=True):
    """`POST /nodes/enrol` (body: a signed `Enrol` envelope, `application/msgpack`)."""

    peer_id: Peer
    account_id: Id
    network: Network
    coordinator_key: HexKey
    gateways: tuple[str, ...]
    region: str


# Accounts -----------------------------------------------------------------------------------------------------------


class AccountView(View, frozen=True, kw_only=True):
    """`GET /account`."""

    account_id: Id
    name: str
    balance_qu: int
    held_qu: int
    scopes: tuple[str, ...]
    order_key: HexKey | None = None
    """The oldest key that may sign its orders now; `GET /order-keys` lists all of them."""
    orders_signed: bool = False
    """Its orders must be signed: it has, or had, a key that signs them."""


class PageSessionBody(Body, frozen=True, kw_only=True):
    """`POST /session`: a token of the account, to be kept in the browser's cookie."""

    token: Annotated[str, Meta(min_length=1, max_length=200)]

    def __repr__(self) -> str:
        return "PageSessionBody()"


class PageSessionView(View, frozen=True, kw_only=True):
    """`GET /session`. Writes by cookie carry `csrf` in the header `X-CSRF-Token`; "" for who came with a token. Without
    `account` nobody is signed in."""

    account: AccountView | None
    csrf: str


class StatementLine(View, frozen=True, kw_only=True):
    """One entry on the account's balance. `cause` says what for, such as `hold:JOB` or `settle:ATTEMPT`."""

    id: int
    at_ms: int
    kind: str
    cause: str
    amount_qu: int


class StatementView(View, frozen=True, kw_only=True):
    lines: tuple[StatementLine, ...]
    next: str | None = None


# Kernels and the market ---------------------------------------------------------------------------------------------


class KernelsView(View, frozen=True, kw_only=True):
    """`GET /kernels`: each as `qubix_kernels.KernelSpec`."""

    kernels: tuple[dict[str, Any], ...]


class ListingView(View, frozen=True, kw_only=True):
    """The coordinator's folded view of one device (`GET /offers`).

    `metrics_age_ms` and `stale` are as they were when this was sent: who shows it for longer adds the time since, and
    marks readings that may be older than a minute (P9).
    """

    listing_id: Id
    provider: Peer
    device_id: str
    kind: DeviceKind
    model: str
    memory_bytes: int
    cores: int
    driver: str
    cuda: str
    compute_capability: str
    backends: tuple[str, ...]
    rate_qu_per_h: int
    region: str
    availability: Availability
    verified: bool
    jobs_accepted: int
    jobs_rejected: int
    metrics: Sample | None = None
    metrics_age_ms: int | None = None
    stale: bool = False
    updated_ms: int = 0
    isolation: Isolation = Isolation.LIMITED
    cpu_cores: int = 0
    cpu_memory_bytes: int = 0
    disk_free_bytes: int = 0
    inet_down_bytes_per_s: int = 0
    inet_up_bytes_per_s: int = 0
    notice_s: int = 0
    country: str = ""
    """ISO 3166 alpha-2; empty: unknown."""
    country_seen: bool = False
    """Found by the address that a gateway saw; else it is the provider's word."""
    devices_alike: int = 1
    """Devices of this model that the same node has in the market, this one included."""
    score: float = 0.0
    """GFLOP/s of float32 matrix products: the least of what challenges and jobs have shown; 0: nothing yet."""
    reliability: float = 0.0
    """0 to 1, by checked work for unrelated consumers; 0: no record."""
    listed_ms: int = 0
    browser: bool = False
    """A browser's tab: it gets only checked work of the market's own kernels, is not rented, and may close any time."""
    fallback: bool = False
    """No GPU: a program on the processor takes its place (test markets alone list it)."""

    @property
    def title(self) -> str:
        """The device as every table calls it."""
        kind = self.kind.titled(self.model)
        marks = [word for word, applies in (("browser", self.browser), ("software", self.fallback)) if applies]
        return f"{kind} ({', '.join(marks)})" if marks else kind


class FilterView(View, frozen=True, kw_only=True):
    """One of the filters that must all hold, and how many offers it leaves. `column` and `length`: where it stands in
    `q`; 0 for a filter that was given apart from it."""

    text: str
    column: int
    length: int
    matches: int
    """Offers that satisfy it, whatever else is asked."""
    without: int
    """Offers that would be found if it were left out."""


class RelaxView(View, frozen=True, kw_only=True):
    """What leaving out these filters would find, and what the last of them would have to say to find the nearest."""

    leave_out: tuple[str, ...]
    offers: int
    instead: str = ""
    said: str


class OffersView(View, frozen=True, kw_only=True):
    """`GET /offers?q=&order=&limit=&after=&counts=`. Counts are there when asked for, and when nothing was found."""

    offers: tuple[ListingView, ...]
    cursor: str
    """Where the live feed goes on from."""
    next: str | None = None
    """`after` of the next page; None: this is the last."""
    query: str = ""
    order: str = ""
    """As they were understood, in their canonical form."""
    total: int | None = None
    """Offers that are found in all."""
    everything: int | None = None
    """Offers in the market."""
    filters: tuple[FilterView, ...] = ()
    relax: tuple[RelaxView, ...] = ()
    """Where nothing was found: what would find something, the most first."""
    why: str = ""
    """Where nothing was found: which filter excluded everything, in a sentence."""


class ReadingsView(View, frozen=True, kw_only=True):
    """`GET /offers/{listing_id}/readings?minutes=60`: what the device said of itself, oldest first, evenly thinned to
    at most `READINGS_MAX`. Their times are by the coordinator's clock."""

    listing_id: Id
    readings: tuple[Sample, ...]


# Artifacts ----------------------------------------------------------------------------------------------------------


class ArtifactBody(Body, frozen=True, kw_only=True):
    """`POST /artifacts`: announce an upload. Content you already stored need not be sent again."""

    digest: HexDigest
    size_bytes: Annotated[int, Meta(ge=1)]


class ArtifactView(View, frozen=True, kw_only=True):
    """`offset` bytes are here already; when `complete`, nothing is left to send.

    Upload: `PUT /artifacts/{digest}` with `Content-Range: bytes first-last/size`, each part starting at `offset`.
    """

    digest: HexDigest
    size_bytes: int
    offset: int
    complete: bool


# Jobs ---------------------------------------------------------------------------------------------------------------


class InputBody(Body, frozen=True, kw_only=True):
    """One input: a `.npy` artifact that was uploaded before."""

    digest: HexDigest
    size_bytes: Annotated[int, Meta(ge=1)]
    meta: ArrayMeta


class JobBody(Body, frozen=True, kw_only=True):
    """`POST /jobs` with an `Idempotency-Key` header. `order` is the hex of a signed `Order` envelope (trust M6). Some
    kernels take no arrays: then there are no `inputs`."""

    kernel: Name
    inputs: Annotated[dict[Name, InputBody], Meta(max_length=INPUTS_MAX)] = {}
    params: Annotated[dict[Name, ParamValue], Meta(max_length=PARAMS_MAX)] = {}
    cap_qu: Annotated[int, Meta(ge=0, le=QU_MAX)]
    """1 or more; 0 for a job on a rental, which costs nothing further."""
    rate_qu_per_h_max: Rate | None = None
    """None: any rate whose forecast fits the cap."""
    provider: Peer | None = None
    """Only this provider; None for any."""
    rental: Id | None = None
    """The rental on whose device it is to run; then there is no rate, no provider and no spread to choose."""
    spread: Annotated[int, Meta(ge=1, le=SPREAD_MAX)] | None = None
    """At most so many devices at once, whatever they ask within the limits above. None: up to four that ask about the
    same, where that saves seconds; one when a provider is named."""
    deadline_s: Annotated[int, Meta(ge=1, le=7 * 86_400)] = 3_600
    region: Short | None = None
    """Where it would rather run: elsewhere only for a sixth less, or where nobody else is free."""
    where: Annotated[str, Meta(max_length=2_000)] | None = None
    """A query line: it goes only to devices that this finds, whenever it is dealt out."""
    order: Annotated[str, Meta(max_length=8192)] = ""


class EstimateBody(Body, frozen=True, kw_only=True):
    """`POST /jobs/estimate`: forms alone, no data needed. The terms, where they are given, are those of the job."""

    kernel: Name
    inputs: Annotated[dict[Name, ArrayMeta], Meta(max_length=INPUTS_MAX)] = {}
    params: Annotated[dict[Name, ParamValue], Meta(max_length=PARAMS_MAX)] = {}
    cap_qu: Annotated[int, Meta(ge=1, le=QU_MAX)] | None = None
    rate_qu_per_h_max: Rate | None = None
    provider: Peer | None = None
    where: Annotated[str, Meta(max_length=2_000)] | None = None
    """A query line: only devices that it finds."""
    region: Short | None = None
    deadline_s: Annotated[int, Meta(ge=1, le=7 * 86_400)] | None = None


class CandidateView(View, frozen=True, kw_only=True):
    """A device that could run it. Low and high are where eight of ten runs lie; `run` is what is paid for, `time` is
    from the assignment to the checked result. `cost_high_qu` is a bound and no guess: no bill is above it, and so much
    of the cap must be left."""

    listing_id: Id
    provider: Peer
    model: str
    backend: str
    rate_qu_per_h: int
    run_ms: int
    cost_low_qu: int
    cost_qu: int
    cost_high_qu: int
    fee_qu: int = 0
    """Of `cost_qu`: what the market keeps, out of which checks are paid."""
    run_low_ms: int
    run_high_ms: int
    time_low_ms: int
    time_ms: int
    time_high_ms: int
    region: str = ""
    country: str = ""
    verified: bool = False
    reliability: float = 0.0
    score: float = 0.0
    runs: int = 0
    """Past runs of its own that the forecast rests on."""
    waiting: str = ""
    """Why it could not begin at once; empty: it could."""
    affordable: bool = True
    """Whether the account's balance is enough for all that it may cost."""


class MisfitView(View, frozen=True, kw_only=True):
    """A device that could not run it. `obstacle` is one of a fixed set; `why` says it in words."""

    listing_id: Id
    provider: Peer
    model: str
    rate_qu_per_h: int
    obstacle: str
    why: str


class ObstacleView(View, frozen=True, kw_only=True):
    obstacle: str
    why: str
    offers: int


class EstimateView(View, frozen=True, kw_only=True):
    """`candidates` in the order in which they would be asked, `misfits` by what keeps them out; so many of each as fit.
    `fitting` and `obstacles` count all of the market."""

    candidates: tuple[CandidateView, ...]
    flops: float
    units: int
    output: dict[str, ArrayMeta]
    check_flops: float = 0.0
    """Operations of checking the whole result. Nobody is billed for them beside the fee."""
    fee_bps: int = 0
    """The market's part of each bill, in basis points."""
    fitting: int = 0
    misfits: tuple[MisfitView, ...] = ()
    obstacles: tuple[ObstacleView, ...] = ()
    balance_qu: int | None = None
    cap_least_qu: int | None = None
    """The least cap with which some device fits, all else as asked; None: no cap is enough."""


class AttemptView(View, frozen=True, kw_only=True):
    attempt_id: Id
    fence: int
    provider: Peer
    model: str
    backend: str
    state: AttemptState
    reason: Reason
    detail: str
    rate_qu_per_h: int
    units: int
    units_done: int
    units_accepted: int
    run_ms: int
    billed_ms: int
    check_ms: int
    verdict: str
    paid_qu: int
    fee_qu: int
    started_ms: int | None = None
    ended_ms: int | None = None
    receipt: bool = False
    listing_id: Id | None = None
    """The device it runs on: what that says of itself is in the market."""
    owed_qu: int = 0
    """For what it delivered, fee included, while that waits for acceptance."""


class JobView(View, frozen=True, kw_only=True):
    """`GET /jobs/{id}`. `cap_qu = held_qu + paid_qu + fee_qu + returned_qu` at any time (trust M1)."""

    job_id: Id
    state: JobState
    reason: Reason
    reason_text: str
    detail: str
    kernel: str
    params: dict[str, ParamValue]
    inputs: dict[str, ArrayMeta]
    created_ms: int
    ended_ms: int | None
    deadline_ms: int
    cap_qu: int
    held_qu: int
    paid_qu: int
    fee_qu: int
    returned_qu: int
    units: int
    units_accepted: int
    fraction: float
    expected_finish_ms: int | None
    spread: int = 1
    """At most so many attempts at once."""
    owed_qu: int = 0
    """Part of `held_qu`: for what was delivered and waits for acceptance."""
    accept_until_ms: int | None = None
    """When the acceptance window ends; what is owed is paid then, unless it was disputed."""
    attempts: tuple[AttemptView, ...]
    revision: int
    rental: Id | None = None
    where: str | None = None
    """The query line by which it says which devices it goes to."""


class CourseLine(View, frozen=True, kw_only=True):
    """One thing that happened. `what` is one word of a few; `attempt` is its number, None for the job itself."""

    at_ms: int
    attempt: int | None
    what: str
    text: str


class CheckView(View, frozen=True, kw_only=True):
    """A verifier's verdict on an attempt. `randomness`: hex of what was drawn after the outputs were committed to."""

    attempt: int
    carried_out: bool
    form_only: bool
    """The kernel has no verifier: only the form of the outputs was judged."""
    accepted: bool
    reason: str
    detail: str
    parts: int
    parts_good: int
    check_ms: int
    at_ms: int
    randomness: str


class JobCourseView(View, frozen=True, kw_only=True):
    """`GET /jobs/{id}/course`: what happened, oldest first, and the checks that ran."""

    job_id: Id
    lines: tuple[CourseLine, ...]
    checks: tuple[CheckView, ...]


class SettleView(View, frozen=True, kw_only=True):
    """`POST /jobs/{id}/settle`, for anybody. `due_ms`: when the next thing falls due by itself; None when nothing
    will."""

    job_id: Id
    state: JobState
    due_ms: int | None = None
    said: str


class JobsView(View, frozen=True, kw_only=True):
    jobs: tuple[JobView, ...]
    next: str | None = None


class ResultPart(View, frozen=True, kw_only=True):
    """Output of units [start, stop): an artifact of `arrays.pack_arrays`, readable at `/artifacts/{digest}`."""

    start: int
    stop: int
    digest: HexDigest
    size_bytes: int


class ResultView(View, frozen=True, kw_only=True):
    """`GET /jobs/{id}/result`: join the parts on axis 0. One output as a `.npy`: `GET /jobs/{id}/result/{name}`."""

    job_id: Id
    outputs: dict[str, ArrayMeta]
    parts: tuple[ResultPart, ...]


class ReceiptView(View, frozen=True, kw_only=True):
    """One attempt's receipt, each half in hex (see `receipts`)."""

    network: Network
    provider: Peer
    coordinator_key: HexKey
    report: str
    settlement: str


class ReceiptsView(View, frozen=True, kw_only=True):
    job_id: Id
    receipts: tuple[ReceiptView, ...]


class AuditView(View, frozen=True, kw_only=True):
    """`GET /audit` (operators)."""

    clean: bool
    checked: dict[str, int]
    violations: tuple[Text, ...]
    unknown: tuple[Text, ...] = ()
    """What could not be told, such as whether the chain has what is owed when it was not read lately."""


# The live feed ------------------------------------------------------------------------------------------------------


class TopicBody(Body, frozen=True, kw_only=True):
    """One topic on `/live`: `market`, `listing:ID`, `account`, `job:ID`, `rental:ID`,
    `dispute:ID` or `pairing:ID`.

    `query` and `order` are for `market` alone; the snapshot comes in that order. With a cursor the topic goes on behind
    it: the last one that came with the topic, since each topic has its own.
    """

    topic: Short
    query: QueryText = ""
    order: QueryText = ""
    cursor: Short | None = None


class Subscribe(Body, frozen=True, kw_only=True):
    """Client → server on `/live`; another one replaces it. A bare name is a topic with nothing else said, and `cursor`
    is that of the only topic."""

    subscribe: Annotated[tuple[Short | TopicBody, ...], Meta(min_length=1, max_length=32)]
    cursor: Short | None = None


class LiveEvent(View, frozen=True, kw_only=True):
    """Server → client, in order within each topic. A market's topic is `market?` and the query as it was sent, or
    `market` without one.

    `kind`: `snapshot` (the whole state, then deltas follow), `more` (further listings of it), `delta`, `still` (nothing
    happened up to the cursor), `reset` (the cursor was too old: snapshots follow), or `slow` (nothing was read for too
    long; the connection ends). A market's or listing's snapshot is its listings, a delta of it a `MarketDelta`; the
    account's topic tells `account_news.AccountNews`, others their whole view each time. An empty cursor is none: a
    later frame carries the one for this, too.
    """

    topic: str
    kind: str
    cursor: str
    data: Any = None


class MarketDelta(View, frozen=True, kw_only=True):
    """What changed of the offers that match. `gone`: they match no more, are rented, or left; some of them may never
    have been told."""

    listings: tuple[ListingView, ...] = ()
    gone: tuple[Id, ...] = ()
