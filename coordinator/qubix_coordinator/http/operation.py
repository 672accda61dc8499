# SPDX-License-Identifier: Apache-2.0
"""What an operator sees of the whole market, read in one transaction. Nothing here changes anything."""

from typing import Final

from qubix_coordinator.db.database import Row, Tx, rows, value
from qubix_coordinator.deposits import status as chain
from qubix_coordinator.deposits.status import ChainState, Look
from qubix_coordinator.disputes import rules as disputes
from qubix_coordinator.http.context import Context
from qubix_coordinator.http.ops import readiness
from qubix_coordinator.jobs import verifiers
from qubix_coordinator.ledger import audit_log
from qubix_coordinator.ledger.audit_log import Run
from qubix_coordinator.market import gateways
from qubix_protocol.disputes import DisputeState, Finding
from qubix_protocol.operation import (
    AuditRunView,
    ChainOpsView,
    DisputeOpsView,
    Health,
    MoneyOpsView,
    NodeOpsView,
    OperatorView,
    ProcessView,
    QueueView,
)

SHOWN: Final = 100
TICK_LATE_MS: Final = 5_000
"""The engines tick every half second."""
AUDIT_LATE_MS: Final = 26 * 3_600_000
_OPEN: Final = "('queued', 'assigned', 'running', 'verifying', 'delivered', 'disputed')"
_NODES: Final = """
    SELECT n.peer_id, n.account_id,
           greatest((extract(epoch FROM n.last_seen_at) * 1000)::bigint, max(l.offered_ms)) AS seen_ms,
           count(l.id) AS devices, count(*) FILTER (WHERE l.online) AS online,
           count(*) FILTER (WHERE l.online AND l.availability IN ('busy', 'rented')) AS busy,
           count(*) FILTER (WHERE l.verified) AS verified,
           coalesce(sum(l.jobs_accepted), 0)::bigint AS accepted, coalesce(sum(l.jobs_rejected), 0)::bigint AS rejected,
           coalesce(sum(l.failures), 0)::bigint AS failures, max(l.backoff_until_ms) AS backoff_ms
      FROM node n LEFT JOIN listing l ON l.peer_id = n.peer_id
     GROUP BY n.peer_id, n.account_id, n.last_seen_at ORDER BY seen_ms DESC, n.peer_id LIMIT $1
"""
_QUEUE: Final = f"SELECT state, count(*) AS jobs FROM job WHERE state IN {_OPEN} GROUP BY state"  # noqa: S608 - our own words
_LISTINGS: Final = """
    SELECT CASE WHEN NOT online THEN 'offline' WHEN rental_id IS NOT NULL THEN 'rented' ELSE availability END AS state,
           count(*) AS devices FROM listing GROUP BY 1
"""
_BALANCES: Final = """
    SELECT kind, sum(balance_qu)::bigint AS qu FROM ledger_balance WHERE kind IN ('hold', 'fees', 'fund') GROUP BY kind
"""
_WITHDRAWALS: Final = """
    SELECT count(*) AS all, coalesce(sum(amount_qu), 0)::bigint AS qu,
           count(*) FILTER (WHERE state = 'waiting' AND reason IN ('approval', 'hot_limit')) AS approvals
      FROM withdrawal WHERE due_ms IS NOT NULL
"""


async def overview(context: Context) -> OperatorView:
    ready = await readiness()
    now_ms = context.now_ms()

    async def step(tx: Tx) -> OperatorView:
        look, last = await chain.read(tx), await audit_log.last(tx)
        open_ones = await rows(
            tx,
            "SELECT id, state, finding, stake_qu, opened_ms, due_ms FROM dispute WHERE state <> 'resolved'"
            " ORDER BY due_ms, no LIMIT $1",
            SHOWN,
        )
        return OperatorView(
            at_ms=now_ms,
            network=context.network,
            ready=ready.ready,
            missing=ready.missing,
            processes=tuple(await _processes(tx, look, last, now_ms)),
            chain=_chain(look),
            queue=await _queue(tx),
            audit=None if last is None else _audit(last),
            listings={row["state"]: row["devices"] for row in await rows(tx, _LISTINGS)},
            nodes_connected=context.mesh.nodes,
            nodes_known=await value(tx, "SELECT count(*) FROM node"),
            nodes=tuple(_node(row, now_ms) for row in await rows(tx, _NODES, SHOWN)),
            disputes=tuple(_dispute(row, context.settings.dispute_two_above_qu) for row in open_ones),
            disputes_open=await value(tx, "SELECT count(*) FROM dispute WHERE state <> 'resolved'"),
            money=await _money(tx),
        )

    return await context.db.run(step)


async def _processes(tx: Tx, look: Look, last: Run | None, now_ms: int) -> list[ProcessView]:
    jobs_ms = await value(tx, "SELECT ticked_ms FROM engine_clock")
    rentals_ms = await value(tx, "SELECT ticked_ms FROM rental_clock")
    return [
        ticking("Engine of jobs", jobs_ms, now_ms),
        ticking("Engine of rentals", rentals_ms, now_ms),
        *await _gateways(tx),
        *await _verifiers(tx),
        chain_process(look, now_ms),
        auditing(last, now_ms),
    ]


def ticking(name: str, ticked_ms: int, now_ms: int) -> ProcessView:
    late_ms = now_ms - ticked_ms
    if ticked_ms == 0:
        return ProcessView(name=name, health=Health.NEVER, text="has not begun", remedy="Start a coordinator")
    if late_ms <= TICK_LATE_MS:
        return ProcessView(name=name, health=Health.OK, text="at work", seen_ms=ticked_ms)
    return ProcessView(
        name=name,
        health=Health.LATE,
        text=f"its last round was {late_ms // 1000} s ago",
        remedy="Look at the coordinator's log and at the database's load",
        seen_ms=ticked_ms,
    )


async def _gateways(tx: Tx) -> list[ProcessView]:
    found = await rows(
        tx,
        "SELECT peer_id, addresses, (extract(epoch FROM seen_at) * 1000)::bigint AS seen_ms,"
        " seen_at > now() - make_interval(secs => $1) AS there FROM gateway ORDER BY peer_id",
        gateways.HEARD_S,
    )
    if not found:
        return [
            ProcessView(
                name="Gateway", health=Health.NEVER, text="none is connected", remedy="Start one with `qubix gateway`"
            )
        ]
    return [
        ProcessView(
            name=f"Gateway …{row['peer_id'][-6:]}",
            health=Health.OK if row["there"] else Health.AWAY,
            text=", ".join(row["addresses"]),
            remedy="" if row["there"] else "Start it again, or leave it out: it is forgotten by itself",
            seen_ms=row["seen_ms"],
        )
        for row in found
    ]


async def _verifiers(tx: Tx) -> list[ProcessView]:
    found = await rows(
        tx,
        "SELECT host, process_id, (extract(epoch FROM seen_at) * 1000)::bigint AS seen_ms,"
        " seen_at > now() - make_interval(secs => $1) AS there FROM verifier ORDER BY host, process_id",
        verifiers.HEARD_S,
    )
    if not found:
        return [
            ProcessView(
                name="Verifier",
                health=Health.NEVER,
                text="none is there: nothing can be checked or paid",
                remedy="Start one with `qubix verifier`",
            )
        ]
    return [
        ProcessView(
            name=f"Verifier {row['host']}:{row['process_id']}",
            health=Health.OK if row["there"] else Health.AWAY,
            text="takes checks" if row["there"] else "fell silent",
            remedy="" if row["there"] else "Start it again; its row goes after a day",
            seen_ms=row["seen_ms"],
        )
        for row in found
    ]


def chain_process(look: Look, now_ms: int) -> ProcessView:
    name = "Chain process"
    if look.checked_ms == 0:
        return ProcessView(
            name=name,
            health=Health.NEVER,
            text="has never looked at the network",
            remedy="Start it with `qubix chain`: without it there are no deposits or withdrawals",
        )
    if look.checked_ms + chain.SILENT_MS < now_ms:
        text, remedy = "fell silent", "Start it again with `qubix chain`"
        return ProcessView(name=name, health=Health.AWAY, text=text, remedy=remedy, seen_ms=look.checked_ms)
    if look.state is ChainState.OK:
        return ProcessView(name=name, health=Health.OK, text="reads the network", seen_ms=look.checked_ms)
    remedy = "It goes on by itself once the network answers; look at QUBIX_QUBIC_URL if it does not"
    text = f"{look.state.value}: {look.problem}" if look.problem else look.state.value
    return ProcessView(name=name, health=Health.LATE, text=text, remedy=remedy, seen_ms=look.checked_ms)


def auditing(last: Run | None, now_ms: int) -> ProcessView:
    name = "Audit of the ledger"
    if last is None:
        return ProcessView(name=name, health=Health.NEVER, text="has not run yet", remedy="Run it: GET /api/v1/audit")
    bad, dark = sum(last.violations.values()), sum(last.unknown.values())
    if bad:
        text, remedy = f"{bad} findings", "Stop withdrawals and look into each of them before anything else"
    elif dark:
        text, remedy = f"{dark} things could not be told", "Bring back what it could not ask, and run it again"
    elif last.at_ms + AUDIT_LATE_MS < now_ms:
        text, remedy = "is older than a day", "Run it, and see why the nightly one did not"
    else:
        return ProcessView(name=name, health=Health.OK, text="clean", seen_ms=last.at_ms)
    return ProcessView(name=name, health=Health.LATE, text=text, remedy=remedy, seen_ms=last.at_ms)


def _chain(look: Look) -> ChainOpsView:
    return ChainOpsView(
        state=look.state.value,
        problem=look.problem,
        since_ms=look.since_ms,
        checked_ms=look.checked_ms,
        live_tick=look.live_tick,
        cursor_tick=look.cursor_tick,
        epoch=look.epoch,
        lag_ticks=look.lag_ticks,
    )


async def _queue(tx: Tx) -> QueueView:
    oldest = await rows(tx, "SELECT id, queued_ms FROM job WHERE state = 'queued' ORDER BY queued_ms, no LIMIT 1")
    return QueueView(
        jobs={row["state"]: row["jobs"] for row in await rows(tx, _QUEUE)},
        oldest_queued_job=str(oldest[0]["id"]) if oldest else None,
        oldest_queued_ms=oldest[0]["queued_ms"] if oldest else None,
        checks_waiting=await value(tx, "SELECT count(*) FROM attempt WHERE state = 'verifying'"),
        oldest_check_ms=await value(tx, "SELECT min(ended_ms) FROM attempt WHERE state = 'verifying'"),
        rentals=await value(tx, "SELECT count(*) FROM rental WHERE ended_ms IS NULL"),
    )


def _audit(last: Run) -> AuditRunView:
    return AuditRunView(
        at_ms=last.at_ms,
        took_ms=last.took_ms,
        checks=len(last.violations),
        violations={check: count for check, count in last.violations.items() if count},
        unknown={check: count for check, count in last.unknown.items() if count},
    )


def _node(row: Row, now_ms: int) -> NodeOpsView:
    backoff_ms = row["backoff_ms"]
    return NodeOpsView(
        provider=row["peer_id"],
        account_id=str(row["account_id"]),
        devices=row["devices"],
        online=row["online"],
        busy=row["busy"],
        verified=row["verified"],
        accepted=row["accepted"],
        rejected=row["rejected"],
        failures=row["failures"],
        backoff_ms=backoff_ms if backoff_ms is not None and backoff_ms > now_ms else None,
        last_seen_ms=row["seen_ms"],
    )


def _dispute(row: Row, two_above_qu: int) -> DisputeOpsView:
    return DisputeOpsView(
        dispute_id=str(row["id"]),
        state=DisputeState(row["state"]),
        finding=Finding(row["finding"]),
        stake_qu=row["stake_qu"],
        arbiters_needed=disputes.arbiters_needed(row["stake_qu"], two_above_qu),
        opened_ms=row["opened_ms"],
        due_ms=row["due_ms"],
    )


async def _money(tx: Tx) -> MoneyOpsView:
    balances = {row["kind"]: row["qu"] for row in await rows(tx, _BALANCES)}
    (out,) = await rows(tx, _WITHDRAWALS)
    return MoneyOpsView(
        held_qu=balances.get("hold", 0),
        fees_qu=balances.get("fees", 0),
        fund_qu=balances.get("fund", 0),
        withdrawals_open=out["all"],
        withdrawals_open_qu=out["qu"],
        approvals=out["approvals"],
    )
