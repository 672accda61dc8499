# SPDX-License-Identifier: Apache-2.0
"""What whoever runs a market sees of it (`GET /operator/overview`). Times are milliseconds by its own clock."""

from enum import StrEnum

from qubix_protocol.api import View
from qubix_protocol.disputes import DisputeState, Finding
from qubix_protocol.messages import Id, Peer


class Health(StrEnum):
    OK = "ok"
    LATE = "late"
    """It is there, and does not keep up."""
    AWAY = "away"
    """Nothing was heard of it for too long."""
    NEVER = "never"
    """Nothing was ever heard of it."""


class ProcessView(View, frozen=True, kw_only=True):
    """A process, or a task that must go on. `remedy` is empty while all is well."""

    name: str
    health: Health
    text: str
    remedy: str = ""
    seen_ms: int | None = None


class ChainOpsView(View, frozen=True, kw_only=True):
    """How the Qubic network looks from the chain process. `lag_ticks`: by how many deposits are read behind it."""

    state: str
    problem: str
    since_ms: int
    checked_ms: int
    live_tick: int | None
    cursor_tick: int | None
    epoch: int | None
    lag_ticks: int | None


class QueueView(View, frozen=True, kw_only=True):
    """Jobs that are not over, by state; what waits longest of those that nobody has, and of the checks."""

    jobs: dict[str, int]
    oldest_queued_job: Id | None
    oldest_queued_ms: int | None
    checks_waiting: int
    oldest_check_ms: int | None
    rentals: int


class AuditRunView(View, frozen=True, kw_only=True):
    """The newest audit of the ledger, whoever made it. `violations` and `unknown`: findings by check, where any are."""

    at_ms: int
    took_ms: int
    checks: int
    violations: dict[str, int]
    unknown: dict[str, int]


class NodeOpsView(View, frozen=True, kw_only=True):
    """A provider's node. `backoff_ms`: until when nothing new is given to one of its devices."""

    provider: Peer
    account_id: Id
    devices: int
    online: int
    busy: int
    verified: int
    accepted: int
    rejected: int
    failures: int
    backoff_ms: int | None
    last_seen_ms: int


class DisputeOpsView(View, frozen=True, kw_only=True):
    """An open dispute. What is in it is for its sides and for arbiters."""

    dispute_id: Id
    state: DisputeState
    finding: Finding
    stake_qu: int
    arbiters_needed: int
    opened_ms: int
    due_ms: int | None


class MoneyOpsView(View, frozen=True, kw_only=True):
    """`approvals`: withdrawals that wait for an operator."""

    held_qu: int
    fees_qu: int
    fund_qu: int
    withdrawals_open: int
    withdrawals_open_qu: int
    approvals: int


class OperatorView(View, frozen=True, kw_only=True):
    """`GET /operator/overview` (operators). Of many nodes and disputes the newest are listed; the counts are of all."""

    at_ms: int
    network: str
    ready: bool
    missing: tuple[str, ...]
    processes: tuple[ProcessView, ...]
    chain: ChainOpsView
    queue: QueueView
    audit: AuditRunView | None
    listings: dict[str, int]
    nodes_connected: int
    nodes_known: int
    nodes: tuple[NodeOpsView, ...]
    disputes: tuple[DisputeOpsView, ...]
    disputes_open: int
    money: MoneyOpsView
