# SPDX-License-Identifier: Apache-2.0
"""What was deposited, as the caller's transaction sees it."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from qubix_coordinator.db.database import Tx, rows, value

PAGE_MAX = 200


@dataclass(frozen=True, slots=True)
class Deposit:
    """`sweep_tx_id` is the transaction that took it to the hot identity, once it is on its way."""

    id: UUID
    no: int
    tick: int
    tx_id: str
    output: int
    source: bytes
    amount_qu: int
    state: str
    reason: str
    evidence: str
    seen_ms: int
    sweep_tx_id: str | None


@dataclass(frozen=True, slots=True)
class Holding:
    """An identity of the treasury and what the network last said is on it."""

    public_key: bytes
    role: str
    balance_qu: int
    tick: int
    checked_at: datetime | None


async def unswept_qu(tx: Tx, account_id: UUID) -> int:
    """What was credited and is not yet with the hot identity: it pays jobs, and cannot be withdrawn (Q1)."""
    found = await value(
        tx,
        "SELECT sum(amount_qu)::bigint FROM deposit WHERE account_id = $1 AND state = 'credited'",
        account_id,
    )
    return int(found or 0)


async def deposits(tx: Tx, account_id: UUID, *, before: int | None = None, limit: int = 50) -> list[Deposit]:
    """Newest first; the next page starts `before` the last `no` of this one."""
    found = await rows(
        tx,
        "SELECT d.id, d.no, d.tick, d.tx_id, d.output, d.source, d.amount_qu, d.state, d.reason, d.evidence, d.seen_ms,"
        " s.tx_id AS sweep_tx_id FROM deposit d LEFT JOIN sweep s ON s.id = d.sweep_id"
        " WHERE d.account_id = $1 AND d.no < $2 ORDER BY d.no DESC LIMIT $3",
        account_id,
        before if before is not None else 2**63 - 1,
        max(1, min(limit, PAGE_MAX)),
    )
    return [Deposit(**{**row, "source": bytes(row["source"])}) for row in found]


async def is_ours(tx: Tx, public_key: bytes) -> bool:
    """The hot identity, or one of the pool: nothing is ever paid out to it."""
    return bool(
        await value(
            tx,
            "SELECT EXISTS (SELECT FROM treasury WHERE public_key = $1)"
            " OR EXISTS (SELECT FROM deposit_identity WHERE public_key = $1)",
            public_key,
        )
    )


async def holdings(tx: Tx) -> list[Holding]:
    """The hot identity first; for the audit of what is there against what is owed (I8)."""
    found = await rows(
        tx, "SELECT public_key, role, balance_qu, tick, checked_at FROM treasury ORDER BY role DESC, public_key"
    )
    return [Holding(**{**row, "public_key": bytes(row["public_key"])}) for row in found]
