# SPDX-License-Identifier: Apache-2.0
"""Reads ticks behind the cursor and credits what they paid, in the transaction that moves the cursor.

The network is asked outside of any transaction. Whatever contradicts itself ends the step: the cursor stays, nothing is
credited, and the next step asks again.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar
from uuid import UUID

from qubix_chain.rpc.errors import Disagreement, SkippedTick, Untrusted
from qubix_chain.rpc.types import Archived
from qubix_chain.rpc.verified import verify
from qubix_coordinator.accounts import wallets
from qubix_coordinator.db.database import Tx, execute, one, rows, value
from qubix_coordinator.deposits import rules
from qubix_coordinator.deposits.desk import ChainDesk
from qubix_coordinator.deposits.rules import DepositState, Leg, Payment, Proven, Reason, Way
from qubix_coordinator.ledger import rules as ledger
from qubix_coordinator.ledger.post import post
from qubix_coordinator.ledger.tell import emit_account
from qubix_protocol import barriers
from qubix_protocol.barriers import Barrier

log = logging.getLogger(__name__)
T = TypeVar("T")
S = TypeVar("S")
AT_ONCE: Final = 8
"""Requests under way at a time: a public API counts them."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did. `behind`: so many ticks are still to be read."""

    cursor: int
    behind: int
    ticks: int
    credited: int


async def start(tx: Tx, processed_tick: int) -> None:
    """Before the first look nobody has had an identity: what was before needs no reading."""
    await execute(tx, "UPDATE chain_state SET cursor_tick = $1 WHERE cursor_tick IS NULL", processed_tick)


async def step(desk: ChainDesk) -> Step:
    """One bounded part of the way to the archive's last tick. Raises ChainError: nothing has changed then."""
    processed = await desk.chain.last_processed_tick()
    cursor = await desk.db.run(lambda tx: value(tx, "SELECT cursor_tick FROM chain_state"))
    if cursor is None:
        await desk.run(lambda tx: start(tx, processed.tick))
        return Step(processed.tick, 0, 0, 0)
    if processed.tick < cursor:
        log.info("deposits.archive_behind_cursor", extra={"processed": processed.tick, "cursor": cursor})
        return Step(cursor, 0, 0, 0)
    # After the archive's tick was read: an identity that is given out from now on is paid in later ticks.
    identities = int(await desk.db.fetch_value("SELECT count(*) FROM deposit_identity WHERE account_id IS NOT NULL"))
    reached = rules.reach(processed)
    leg = rules.next_leg(cursor, reached.tick, identities)
    if leg.first > leg.last:
        return Step(cursor, 0, 0, 0)
    found = await _look(desk, leg, reached)
    await barriers.reach(Barrier.DEPOSITS_READ)
    credited = await desk.run(lambda tx: _record(tx, desk, cursor, leg.last, found))
    await barriers.reach(Barrier.DEPOSITS_COMMITTED)
    return Step(leg.last, reached.tick - leg.last, leg.last - cursor, credited)


# Looking --------------------------------------------------------------------------------------------------------------


async def _look(desk: ChainDesk, leg: Leg, reached: rules.Reach) -> list[Proven]:
    """Every proven payment to one of our identities in these ticks, in their order."""
    txs = await (_by_ticks(desk, leg) if leg.way is Way.TICKS else _by_identities(desk, leg))
    ours = await _ours(desk, {key for tx in txs for key in rules.destinations(tx)})
    found: list[Proven] = []
    for tx in sorted(txs, key=lambda tx: (tx.tick, tx.tx_id)):
        wanted = [payment for payment in rules.payments(tx) if payment.destination in ours]
        if wanted:
            verify(tx)
            found.extend(await _proven(desk, tx, wanted, with_logs=tx.tick <= reached.logs_tick))
    return found


async def _proven(desk: ChainDesk, tx: Archived, wanted: Sequence[Payment], *, with_logs: bool) -> list[Proven]:
    by_destination: dict[bytes, list[Payment]] = defaultdict(list)
    for payment in wanted:
        by_destination[payment.destination].append(payment)
    found: list[Proven] = []
    for destination, same in by_destination.items():
        logs = await desk.chain.qu_transfers(tx.tick, destination) if with_logs else None
        try:
            found.extend(one for one in (rules.proven(payment, tx, logs, same) for payment in same) if one is not None)
        except rules.Unproven as problem:
            raise Untrusted(str(problem)) from None
    return found


async def _by_ticks(desk: ChainDesk, leg: Leg) -> list[Archived]:
    """Every transaction of these ticks. Raises Disagreement when a tick's two lists are not the same."""
    by_tick = await _gather(range(leg.first, leg.last + 1), lambda tick: _tick(desk, tick))
    skipped = [tick for tick, txs in zip(range(leg.first, leg.last + 1), by_tick, strict=True) if txs is None]
    if skipped:
        await _check_skipped(desk, skipped)
    return [tx for txs in by_tick if txs is not None for tx in txs]


async def _tick(desk: ChainDesk, tick: int) -> Sequence[Archived] | None:
    """None for a tick that is said to have been skipped."""
    try:
        data = await desk.chain.tick_data(tick)
        if data is None or not data.tx_ids:
            return ()
        txs = await desk.chain.transactions_for_tick(tick)
    except SkippedTick:
        return None
    if {tx.tx_id for tx in txs} != set(data.tx_ids):
        raise Disagreement(f"the archive's list of tick {tick} and its transactions are not the same")
    return txs


async def _check_skipped(desk: ChainDesk, skipped: Sequence[int]) -> None:
    intervals = await desk.chain.processed_intervals()
    for tick in skipped:
        if any(one.first_tick <= tick <= one.last_tick for one in intervals):
            raise Disagreement(f"the archive says that tick {tick} was skipped, and that it was processed")


async def _by_identities(desk: ChainDesk, leg: Leg) -> list[Archived]:
    if not rules.covered(leg, await desk.chain.processed_intervals()):
        raise Untrusted(f"the archive does not keep all of the ticks from {leg.first} to {leg.last}")
    assigned = await desk.db.fetch("SELECT public_key FROM deposit_identity WHERE account_id IS NOT NULL ORDER BY no")
    keys = [bytes(row["public_key"]) for row in assigned]
    plain = await _gather(keys, lambda key: desk.chain.transactions_to(key, leg.first, leg.last))
    many = await desk.chain.send_manys(leg.first, leg.last)
    return [tx for txs in (*plain, many) for tx in txs]


async def _ours(desk: ChainDesk, keys: Iterable[bytes]) -> set[bytes]:
    wanted = list(keys)
    if not wanted:
        return set()
    found = await desk.db.fetch(
        "SELECT public_key FROM deposit_identity WHERE account_id IS NOT NULL AND public_key = ANY ($1::bytea[])",
        wanted,
    )
    return {bytes(row["public_key"]) for row in found}


async def _gather(items: Iterable[S], ask: Callable[[S], Awaitable[T]]) -> list[T]:
    """In order; a failure ends them all, and is raised alone."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(item: S) -> T:
        async with turns:
            return await ask(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except BaseExceptionGroup as problems:
        raise problems.exceptions[0] from None
    return [task.result() for task in tasks]


# Recording ------------------------------------------------------------------------------------------------------------


async def _record(tx: Tx, desk: ChainDesk, cursor: int, last: int, found: Sequence[Proven]) -> int:
    """Moves the cursor and credits what is new; how many payments were. Does nothing when the cursor has moved."""
    at = await value(tx, "SELECT cursor_tick FROM chain_state FOR UPDATE")
    if at != cursor:
        return 0
    await execute(tx, "UPDATE chain_state SET cursor_tick = $1", last)
    credited = [await _record_one(tx, desk, one) for one in found]
    accounts = sorted({account_id for account_id in credited if account_id is not None})
    for account_id in accounts:
        await emit_account(tx, account_id)
    return sum(account_id is not None for account_id in credited)


async def _record_one(tx: Tx, desk: ChainDesk, one_proven: Proven) -> UUID | None:
    """The account that was credited, or None."""
    payment = one_proven.payment
    owner = await one(tx, "SELECT no, account_id FROM deposit_identity WHERE public_key = $1", payment.destination)
    assert owner is not None
    account_id: UUID = owner["account_id"]
    small = payment.amount_qu < desk.settings.deposit_min_qu
    transfer = ledger.deposit(
        account_id,
        payment.amount_qu,
        network=desk.network,
        tick=payment.tick,
        tx_id=payment.tx_id,
        output=payment.output,
    )
    if not small:
        await post(tx, [transfer])
    new = await rows(
        tx,
        "INSERT INTO deposit (id, tick, tx_id, output, identity_no, account_id, source, amount_qu, evidence, state,"
        " reason, transfer_id, seen_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
        " ON CONFLICT ON CONSTRAINT deposit_once DO NOTHING RETURNING id",
        rules.deposit_id(desk.network, payment),
        payment.tick,
        payment.tx_id,
        payment.output,
        owner["no"],
        account_id,
        payment.source,
        payment.amount_qu,
        one_proven.evidence.value,
        (DepositState.SEEN if small else DepositState.CREDITED).value,
        (Reason.BELOW_MINIMUM if small else Reason.NONE).value,
        None if small else transfer.id,
        desk.now_ms(),
    )
    if not new:
        return None
    # However late it is read, such as after an outage, it counts from when it was paid.
    paid_ms = min(desk.now_ms(), payment.at_ms or desk.now_ms())
    paid_at = datetime.fromtimestamp(paid_ms / 1000, UTC)
    await wallets.payment_seen(tx, account_id, payment.source, payment.amount_qu, paid_at=paid_at)
    log.info(
        "deposits.seen" if small else "deposits.credited",
        extra={"account": str(account_id), "amount_qu": payment.amount_qu, "tick": payment.tick, "tx": payment.tx_id},
    )
    return None if small else account_id
