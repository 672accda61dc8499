# SPDX-License-Identifier: Apache-2.0
"""Every signed statement that nodes and the coordinator exchange. Each travels as the body of an `envelope.Envelope`.

Times are milliseconds since the epoch by the *sender's* clock unless a field says otherwise; durations are
milliseconds. Digests are SHA-256, 32 raw bytes. Ids are UUIDs in their usual text form.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.states import Availability, DeviceKind, Isolation, OrderKeyKind, Outcome, Reason, RentalReason
from qubix_protocol.units import (
    ARTIFACT_BYTES_MAX,
    CERTIFICATE_BYTES_MAX,
    CHUNKS_MAX,
    INPUTS_MAX,
    PARAMS_MAX,
    QU_MAX,
    RATE_QU_PER_H_MAX,
    RELAY_ADDRESSES_MAX,
    RENTAL_S_MAX,
    RENTAL_S_MIN,
    RENTALS_MAX,
    SETTLEMENTS_MAX,
    TEXT_MAX,
    THROTTLE_MAX,
    UNITS_MAX,
    Network,
)

Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
Id = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", max_length=36)]
_STORABLE: Final = r"^[^\x00]*$"
"""PostgreSQL's text holds every character but NUL: refused here, it is the sender's mistake and nobody else's fault."""
Peer = Annotated[str, Meta(pattern=_STORABLE, max_length=64)]
# `$` alone would also match before a line break at the end.
Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}$(?!\n)", max_length=64)]
Short = Annotated[str, Meta(pattern=_STORABLE, max_length=200)]
Text = Annotated[str, Meta(pattern=_STORABLE, max_length=TEXT_MAX)]
Millis = Annotated[int, Meta(ge=0, le=2**53)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Units = Annotated[int, Meta(ge=0, le=UNITS_MAX)]
Amount = Annotated[int, Meta(ge=0, le=QU_MAX)]
Rate = Annotated[int, Meta(ge=0, le=RATE_QU_PER_H_MAX)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Percent = Annotated[float, Meta(ge=0.0, le=100.0)]
ParamValue = bool | int | float | str
Params = Annotated[dict[Name, ParamValue], Meta(max_length=PARAMS_MAX)]


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="t"):
    """Base of every statement: unknown fields are refused, the tag is the class name in lower case."""


# Handshake ----------------------------------------------------------------------------------------------------------


class Challenge(Message, frozen=True, kw_only=True, tag="challenge"):
    """Coordinator → node, first word on a control stream, and the only one that is not encrypted. `exchange` is its
    X25519 key of this session (see `channel`)."""

    nonce: Digest
    clock_ms: Millis
    exchange: Digest


class Host(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The machine a node runs on, as it describes itself (claims, never billed on: trust C6)."""

    system: Short
    cpu_model: Short
    cpu_cores: Annotated[int, Meta(ge=1, le=4096)]
    memory_bytes: Count
    agent: Short


class LiveAttempt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An attempt that a (re)connecting node still has in hand."""

    attempt_id: Id
    fence: Count
    running: bool


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """Node → coordinator: answers the challenge. The only statement accepted with incarnation 0. `exchange` is the
    node's X25519 key of this session: what hides the frame is proved inside it."""

    nonce: Digest
    exchange: Digest
    clock_ms: Millis
    host: Host
    attempts: Annotated[tuple[LiveAttempt, ...], Meta(max_length=256)] = ()
    rentals: Annotated[tuple[Id, ...], Meta(max_length=RENTALS_MAX)] = ()
    """Those that the node believes to be open."""
    region: Short = ""
    """Where the operator wants to offer; empty: wherever the coordinator says. The certificate is the answer."""


class Certificate(Message, frozen=True, kw_only=True, tag="certificate"):
    """Coordinator-signed permission to gossip offers (trust P3)."""

    peer_id: Peer
    region: Short
    expires_ms: Millis


class Welcome(Message, frozen=True, kw_only=True, tag="welcome"):
    """Coordinator → node: the handshake is done; statements of this session carry `incarnation`."""

    incarnation: Annotated[int, Meta(ge=1, le=2**53)]
    account_id: Id
    clock_ms: Millis
    heartbeat_s: Annotated[float, Meta(gt=0, le=60)]
    offer_s: Annotated[float, Meta(gt=0, le=600)]
    telemetry_s: Annotated[float, Meta(gt=0, le=600)]
    artifact_url: Text
    certificate: Annotated[bytes, Meta(max_length=CERTIFICATE_BYTES_MAX)]


class Renewal(Message, frozen=True, kw_only=True, tag="renewal"):
    """Coordinator → node: the certificate to gossip under from now on, before the last one ends."""

    certificate: Annotated[bytes, Meta(max_length=CERTIFICATE_BYTES_MAX)]


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """Either way: what was sent cannot be used, and what to do about it."""

    code: Short
    detail: Text
    remedy: Text = ""


# Offers and metrics -------------------------------------------------------------------------------------------------


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of a device. None means that the device does not tell.

    The one part of a statement whose unknown fields are ignored: readings decide nothing, and a newer node may tell
    more of them than this side knows.
    """

    at_ms: Millis
    """On the wire by the coordinator's clock, as the handshake told it: a node's own clock decides nothing."""
    utilisation_pct: Percent | None = None
    memory_used_bytes: Count | None = None
    memory_total_bytes: Count | None = None
    temperature_c: Annotated[float, Meta(ge=-100, le=300)] | None = None
    power_mw: Count | None = None
    clock_mhz: Count | None = None
    """Of the multiprocessors (or the CPU)."""
    memory_busy_pct: Percent | None = None
    """Share of the time in which the memory was being read or written."""
    memory_clock_mhz: Count | None = None
    power_limit_mw: Count | None = None
    fan_pct: Percent | None = None
    throttle: Annotated[tuple[Name, ...], Meta(max_length=THROTTLE_MAX)] | None = None
    """What keeps the clock below its highest, as words of `states.Throttle` (a newer node may know more); empty:
    nothing does."""
    pcie_rx_bytes_per_s: Count | None = None
    pcie_tx_bytes_per_s: Count | None = None
    processes: Count | None = None
    """That compute on the device, whoever they belong to."""
    foreign_processes: Count | None = None
    """Those of them that are not this node's: somebody else uses the card too."""
    foreign_memory_bytes: Count | None = None
    ecc_errors: Count | None = None
    """Uncorrected memory errors since the driver was loaded."""
    retired_pages: Count | None = None
    """Pages of memory given up for good, or rows that were remapped."""
    xid: Count | None = None
    """The driver's number of the newest critical error since the node started."""


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is for rent. `device_id` is stable across restarts (NVML's UUID, or `cpu-` and the peer id's tail)."""

    device_id: Short
    kind: DeviceKind
    model: Short
    memory_bytes: Count
    cores: Count = 0
    driver: Short = ""
    cuda: Short = ""
    compute_capability: Short = ""
    backends: Annotated[tuple[Name, ...], Meta(max_length=8)]
    fallback: bool = False
    """A program that computes on the processor and only takes a GPU's place; by the node's own word."""


class KernelRate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What this device measured of itself on one kernel."""

    kernel: Name
    backend: Name
    flops_per_s: Annotated[float, Meta(ge=0, le=1e21)]
    bytes_per_s: Annotated[float, Meta(ge=0, le=1e18)]
    overhead_s: Annotated[float, Meta(ge=0, le=60)] = 0.0
    """What every run takes besides, however small it is."""


class Offer(Message, frozen=True, kw_only=True, tag="offer"):
    """A node's signed statement about one device: gossiped on change and every 30 s."""

    device: Device
    rate_qu_per_h: Rate
    region: Short
    availability: Availability
    rates: Annotated[tuple[KernelRate, ...], Meta(max_length=64)] = ()
    metrics: Sample | None = None
    jobs_parallel: Annotated[int, Meta(ge=1, le=64)] = 1
    isolation: Isolation = Isolation.LIMITED
    cpu_cores: Annotated[int, Meta(ge=0, le=4096)] = 0
    cpu_memory_bytes: Count = 0
    disk_free_bytes: Count = 0
    """For the inputs and results of jobs."""
    inet_down_bytes_per_s: Count = 0
    inet_up_bytes_per_s: Count = 0
    """Measured against the artifact store. Of all these, 0 says nothing."""
    notice_s: Annotated[int, Meta(ge=0, le=RENTAL_S_MAX)] = 0
    """How long before maintenance the provider says so."""
    country: Annotated[str, Meta(pattern=r"^([A-Z]{2})?$(?!\n)", max_length=2)] = ""
    """ISO 3166 alpha-2, as the operator says; empty: they do not."""
    relays_at: Annotated[tuple[Short, ...], Meta(max_length=RELAY_ADDRESSES_MAX)] = ()
    """Multiaddrs at which this node passes its region's offers on to whoever connects (trust P5)."""


class DeviceSample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    device_id: Short
    sample: Sample


class Telemetry(Message, frozen=True, kw_only=True, tag="telemetry"):
    """Node → coordinator: samples since the last one, newest last."""

    samples: Annotated[tuple[DeviceSample, ...], Meta(max_length=512)]


# Work ---------------------------------------------------------------------------------------------------------------


class InputRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input of a job: a `.npy` artifact. `meta` is what its header says."""

    name: Name
    digest: Digest
    size_bytes: Annotated[int, Meta(ge=1, le=ARTIFACT_BYTES_MAX)]
    meta: ArrayMeta


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units [start, stop)."""

    start: Units
    stop: Units

    @property
    def units(self) -> int:
        return self.stop - self.start


class Assign(Message, frozen=True, kw_only=True, tag="assign"):
    """Coordinator → node: run these units. Sent again until it is answered; `fence` makes it idempotent."""

    job_id: Id
    attempt_id: Id
    fence: Annotated[int, Meta(ge=1, le=2**53)]
    device_id: Short
    backend: Name
    kernel: Name
    kernel_version: Annotated[int, Meta(ge=1, le=2**31)]
    params: Params
    inputs: Annotated[tuple[InputRef, ...], Meta(max_length=INPUTS_MAX)]
    units_total: Units
    ranges: Annotated[tuple[Range, ...], Meta(min_length=1, max_length=CHUNKS_MAX)]
    chunk_units: Annotated[int, Meta(ge=1, le=UNITS_MAX)]
    """Units of the first chunk; the node then aims at about a second a chunk by what it measures."""
    time_limit_ms: Millis
    """From acceptance; the worker is killed beyond it."""
    rate_qu_per_h: Rate
    offer_digest: Digest
    rental: Id | None = None
    """The rental of the device that the job belongs to; such a job costs nothing further."""


class Accept(Message, frozen=True, kw_only=True, tag="accept"):
    attempt_id: Id
    fence: Count


class Decline(Message, frozen=True, kw_only=True, tag="decline"):
    attempt_id: Id
    fence: Count
    reason: Short
    detail: Text = ""


class Cancel(Message, frozen=True, kw_only=True, tag="cancel"):
    """Coordinator → node: stop now. Answered by a `Report` with outcome cancelled (or the one already made)."""

    attempt_id: Id
    fence: Count
    reason: Reason


class Beat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    attempt_id: Id
    fence: Count
    fraction: Fraction
    """Of this attempt's own units; never falls."""
    elapsed_ms: Millis


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    """Node → coordinator, every 2 s, busy or idle."""

    attempts: Annotated[tuple[Beat, ...], Meta(max_length=256)] = ()


class Link(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A checkpoint: these units are done and this is the digest of their output artifact (trust M3).

    `predecessor` is the `chain_digest` of the link before it (32 zero bytes for an attempt's first), so a chain's
    head commits to every output in it.
    """

    index: Annotated[int, Meta(ge=0, lt=CHUNKS_MAX)]
    units: Range
    output_digest: Digest
    output_bytes: Annotated[int, Meta(ge=1, le=ARTIFACT_BYTES_MAX)]
    claimed_ms: Millis
    """Run time of this chunk on the node's monotonic clock; uploads are not in it."""
    predecessor: Digest


class Progress(Message, frozen=True, kw_only=True, tag="progress"):
    """Node → coordinator: at least every 5 s; acknowledged, and sent again until then, when it carries a link."""

    attempt_id: Id
    fence: Count
    fraction: Fraction
    elapsed_ms: Millis
    link: Link | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    code: Short
    detail: Text


class Report(Message, frozen=True, kw_only=True, tag="report"):
    """Node → coordinator: the attempt is over. Signed, it is the provider's half of the receipt."""

    job_id: Id
    attempt_id: Id
    fence: Count
    outcome: Outcome
    kernel: Name
    params_digest: Digest
    inputs_digest: Digest
    links: Count
    units_done: Units
    head: Digest
    """`chain_digest` of the last link; 32 zero bytes without one."""
    claimed_ms: Millis
    started_ms: Millis
    finished_ms: Millis
    backend: Name
    device_id: Short
    failure: Failure | None = None


class Acknowledged(Message, frozen=True, kw_only=True, tag="acknowledged"):
    """Coordinator → node: this is durable here; the node may forget it. `link` is None for a report."""

    attempt_id: Id
    fence: Count
    link: Count | None = None


class Settlement(Message, frozen=True, kw_only=True, tag="settlement"):
    """Coordinator → node and consumer: what became of an attempt. Signed, it is the coordinator's half of the receipt.

    `report_digest` is the SHA-256 of the node's signed report as it was received; 32 zero bytes when it never came
    (then `head` is of the last link that did). Money: `paid_qu + fee_qu` came out of the hold for this attempt.
    """

    network: Network
    job_id: Id
    attempt_id: Id
    provider: Peer
    report_digest: Digest
    head: Digest
    units_accepted: Units
    units_total: Units
    verdict: Short
    verdict_detail: Text = ""
    check_ms: Millis
    run_ms: Millis
    billed_ms: Millis
    rate_qu_per_h: Rate
    paid_qu: Amount
    fee_qu: Amount
    decided_ms: Millis


class Leaving(Message, frozen=True, kw_only=True, tag="leaving"):
    """Node → coordinator: I go now, and hand back what I have. Signed before it is needed and sent as the last word of
    a session, under a counter that nothing follows: a page that is closed has no time to sign. A node that is back
    within a few seconds (a page that was reloaded) goes on with what it had."""


class SettlementsAsk(Message, frozen=True, kw_only=True, tag="settlements_ask"):
    """Node → coordinator: which of my attempts were settled after this place? (0, "") is the beginning; every other
    place is one that an answer named."""

    after_ms: Millis
    after: Annotated[str, Meta(pattern=r"^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})?$(?!\n)")]


class Settlements(Message, frozen=True, kw_only=True, tag="settlements"):
    """Coordinator → node: settlements once more, oldest first, each signed as it was told at first. The node keeps
    (`next_ms`, `next`) to ask from there; `more`: at once."""

    told: Annotated[tuple[bytes, ...], Meta(max_length=SETTLEMENTS_MAX)]
    next_ms: Millis
    next: str
    more: bool


# Rentals ------------------------------------------------------------------------------------------------------------

RentalSeconds = Annotated[int, Meta(ge=RENTAL_S_MIN, le=RENTAL_S_MAX)]


class RentalStart(Message, frozen=True, kw_only=True, tag="rental_start"):
    """Coordinator → node: the device is rented. Said again until it is answered, and after each handshake."""

    rental_id: Id
    device_id: Short
    rate_qu_per_h: Rate
    seconds: RentalSeconds
    offer_digest: Digest


class RentalAccept(Message, frozen=True, kw_only=True, tag="rental_accept"):
    rental_id: Id


class RentalDecline(Message, frozen=True, kw_only=True, tag="rental_decline"):
    rental_id: Id
    reason: Short
    detail: Text = ""


class RentalNonce(Message, frozen=True, kw_only=True, tag="rental_nonce"):
    """Coordinator → node: prove that the rented device is there now. Drawn at random for this question alone."""

    rental_id: Id
    nonce: Digest


class RentalBeat(Message, frozen=True, kw_only=True, tag="rental_beat"):
    """Node → coordinator: the answer. The meter runs only between two of these (trust M9)."""

    rental_id: Id
    nonce: Digest


class RentalNotice(Message, frozen=True, kw_only=True, tag="rental_notice"):
    """Node → coordinator: the rental cannot go on beyond `ends_ms`, by the coordinator's clock. `device_lost`: it has
    ended already."""

    rental_id: Id
    device_lost: bool = False
    ends_ms: Millis
    detail: Text = ""


class RentalEnd(Message, frozen=True, kw_only=True, tag="rental_end"):
    """Coordinator → node: it is over; the device is free. What it earned: `paid_qu`, for `billed_ms`."""

    rental_id: Id
    reason: RentalReason
    billed_ms: Millis
    paid_qu: Amount


# HTTP requests signed by a key -------------------------------------------------------------------------------------


class Enrol(Message, frozen=True, kw_only=True, tag="enrol"):
    """Node → coordinator by HTTPS, once: creates the node's record (and its account)."""

    host: Host
    clock_ms: Millis


class KeySignIn(Message, frozen=True, kw_only=True, tag="key_sign_in"):
    """Holder of a key → coordinator by HTTPS: a session for the account that the key speaks for. It serves once."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    clock_ms: Millis


class ArtifactRequest(Message, frozen=True, kw_only=True, tag="artifact_request"):
    """One request of a live attempt to the artifact store (trust D1)."""

    method: Annotated[str, Meta(pattern="^(GET|HEAD|PUT)$")]
    digest: Digest
    size_bytes: Annotated[int, Meta(ge=1, le=ARTIFACT_BYTES_MAX)]
    attempt_id: Id
    fence: Count


class Order(Message, frozen=True, kw_only=True, tag="order"):
    """The consumer's signed order that starts a job (trust M6)."""

    idempotency_key: Short
    kernel: Name
    params_digest: Digest
    inputs_digest: Digest
    cap_qu: Amount
    """0 for a job on a rental, which costs nothing further."""
    rate_qu_per_h_max: Rate | None
    """None: any rate whose forecast fits the cap; 0 is a limit like any other."""
    rental: Id | None = None


class RentOrder(Message, frozen=True, kw_only=True, tag="rent_order"):
    """The consumer's signed order that starts a rental (trust M6)."""

    idempotency_key: Short
    listing_id: Id
    seconds: RentalSeconds
    rate_qu_per_h_max: Rate | None
    cap_qu: Annotated[int, Meta(ge=1, le=QU_MAX)] | None
    more: Annotated[tuple[Id, ...], Meta(max_length=RENTALS_MAX - 1)] = ()
    """Further devices of the same node."""
    count: Annotated[int, Meta(ge=1, le=RENTALS_MAX)] = 1
    """So many devices alike, this one among them."""


class ExtendOrder(Message, frozen=True, kw_only=True, tag="extend_order"):
    """The consumer's signed order that makes a rental longer."""

    idempotency_key: Short
    rental_id: Id
    seconds: RentalSeconds
    cap_qu: Annotated[int, Meta(ge=1, le=QU_MAX)] | None


# Order keys (docs/adr/0038) ----------------------------------------------------------------------------------------


class OrderKeyRequest(Message, frozen=True, kw_only=True, tag="order_key_request"):
    """A key → coordinator: it asks to sign this account's orders. The key signs it itself, which proves that somebody
    holds it; it adds nothing until the account approves."""

    account_id: Id
    kind: OrderKeyKind
    name: Annotated[str, Meta(min_length=1, max_length=100, pattern=_STORABLE)]
    clock_ms: Millis


class OrderKeyApproval(Message, frozen=True, kw_only=True, tag="order_key_approval"):
    """A key that signs the account's orders → coordinator: the key of this request shall sign them too."""

    account_id: Id
    request_digest: Digest
    """Of the signed `OrderKeyRequest` as it stands."""


class OrderKeyRevocation(Message, frozen=True, kw_only=True, tag="order_key_revocation"):
    """A key that signs the account's orders → coordinator: this key shall sign none from now on, and never again."""

    account_id: Id
    public_key: Digest


class WalletApproval(Message, frozen=True, kw_only=True, tag="wallet_approval"):
    """A key that signs the account's orders → coordinator: this bound wallet may add and revoke such keys, too."""

    account_id: Id
    identity: Annotated[str, Meta(pattern="^[A-Z]{60}$", max_length=60)]


TELEMETRY_TYPES: Final = frozenset({"telemetry", "heartbeat"})
"""What a gateway may hold back for a moment and batch."""


def type_name(kind: type[Message]) -> str:
    """The tag that names a message type on the wire."""
    tag: Any = kind.__struct_config__.tag
    return str(tag)
