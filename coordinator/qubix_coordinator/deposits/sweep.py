# SPDX-License-Identifier: Apache-2.0
"""Takes credited deposits on to the hot identity. The ledger does not change: the QU stay the users'.

Q2's rule: a signed sweep is stored before anybody sees it, one that may still run is the identity's only one, and
another is signed only once the archive shows that the last one never ran.
"""

import logging
from typing import Final, NamedTuple
from uuid import UUID, uuid4

from qubix_chain.rpc.errors import RefusedByNetwork, Unreachable, Untrusted
from qubix_chain.rpc.types import Balance, Processed, TickInfo
from qubix_coordinator.db.database import Row, Tx, execute, rows, value
from qubix_coordinator.deposits import rules
from qubix_coordinator.deposits.desk import ChainDesk
from qubix_coordinator.deposits.ports import Signed
from qubix_coordinator.deposits.rules import Fate, SweepState, Totals
from qubix_coordinator.deposits.told import ask
from qubix_protocol import barriers
from qubix_protocol.barriers import Barrier

log = logging.getLogger(__name__)
BATCH: Final = 32
"""Sweeps that one step looks at, and signs."""
PROBLEM_MAX: Final = 500


class Sweep(NamedTuple):
    id: UUID
    identity_no: int
    tx_id: str
    raw: bytes
    amount_qu: int
    covers_tick: int
    tick: int
    outgoing_qu: int
    outgoing_count: int
    sent: bool


async def step(desk: ChainDesk, info: TickInfo, processed: Processed) -> None:
    """Ends what has ended, sends what may still run, signs what is new. Raises ChainError."""
    for one in await desk.db.run(_live):
        if processed.tick >= one.tick:
            await _settle(desk, one)
        elif info.tick < one.tick and not one.sent:
            await _send(desk, one)
    target = rules.aim(info.tick, rules.AHEAD, epoch_end_tick=(await desk.chain.epoch_end()).tick_min)
    if target is None:
        return
    for row in await desk.db.run(_unswept):
        await _sign(desk, row["identity_no"], bytes(row["public_key"]), target)


async def _live(tx: Tx) -> list[Sweep]:
    found = await rows(
        tx,
        "SELECT id, identity_no, tx_id, raw, amount_qu, covers_tick, tick, outgoing_qu, outgoing_count,"
        " sent_ms IS NOT NULL AS sent FROM sweep WHERE state = 'live' ORDER BY tick, id LIMIT $1",
        BATCH,
    )
    return [Sweep(**{**row, "raw": bytes(row["raw"])}) for row in found]


async def _unswept(tx: Tx) -> list[Row]:
    return await rows(
        tx,
        "SELECT i.no AS identity_no, i.public_key FROM deposit_identity i WHERE EXISTS"
        " (SELECT FROM deposit d WHERE d.identity_no = i.no AND d.state = 'credited') AND NOT EXISTS"
        " (SELECT FROM sweep s WHERE s.identity_no = i.no AND s.state = 'live') ORDER BY i.no LIMIT $1",
        BATCH,
    )


# Signing and sending ------------------------------------------------------------------------------------------------


async def _sign(desk: ChainDesk, no: int, public_key: bytes, target: int) -> None:
    balance = await desk.chain.balance(public_key)
    await desk.run(lambda tx: note_balance(tx, balance, "deposit"))
    if balance.amount_qu == 0 or balance.valid_for_tick >= target:
        return
    signed = desk.signer.sign_sweep(no, amount_qu=balance.amount_qu, tick=target)
    made = Sweep(
        uuid4(),
        no,
        signed.tx_id,
        signed.raw,
        balance.amount_qu,
        balance.valid_for_tick,
        target,
        balance.outgoing_qu,
        balance.outgoing_count,
        sent=False,
    )
    if not await desk.run(lambda tx: _store(tx, made, desk.now_ms())):
        return
    await barriers.reach(Barrier.SWEEP_SIGNED)
    await _send(desk, made)


async def _store(tx: Tx, made: Sweep, now_ms: int) -> bool:
    """False when another one of this identity may still run, or when this very one is stored already."""
    found = await rows(
        tx,
        "INSERT INTO sweep (id, identity_no, tx_id, raw, amount_qu, covers_tick, tick, outgoing_qu, outgoing_count,"
        " state, signed_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'live', $10)"
        " ON CONFLICT DO NOTHING RETURNING id",
        made.id,
        made.identity_no,
        made.tx_id,
        made.raw,
        made.amount_qu,
        made.covers_tick,
        made.tick,
        made.outgoing_qu,
        made.outgoing_count,
        now_ms,
    )
    return bool(found)


async def _send(desk: ChainDesk, one: Sweep) -> None:
    """The same bytes as often as needed: they can run in one tick only, and once."""
    try:
        await desk.chain.broadcast(one.raw)
    except RefusedByNetwork as problem:
        # Its tick is over; what became of it, the archive will tell.
        log.info("deposits.sweep_refused", extra={"tx": one.tx_id, "problem": str(problem)})
        return
    except (Unreachable, Untrusted) as problem:
        # It may have been taken or not: the archive will tell.
        log.warning("deposits.sweep_not_sent", extra={"tx": one.tx_id, "problem": str(problem)})
        return
    await barriers.reach(Barrier.SWEEP_SENT)
    now_ms = desk.now_ms()
    await desk.run(
        lambda tx: execute(tx, "UPDATE sweep SET sent_ms = $2 WHERE id = $1 AND state = 'live'", one.id, now_ms)
    )


# What became of it ----------------------------------------------------------------------------------------------------


async def _settle(desk: ChainDesk, one: Sweep) -> None:
    signed = Signed(one.raw, one.tx_id, one.raw[:32], desk.signer.hot_public_key, one.amount_qu, one.tick)
    before = Totals(one.outgoing_qu, one.outgoing_count, one.covers_tick)
    found = rules.fate(one.tick, before, [await ask(desk.chain, signed)])
    if found is Fate.OPEN:
        return
    if found is Fate.DOUBT:
        problem = f"what the network tells of sweep {one.tx_id} does not fit together: it stays as it is"
        await desk.run(lambda tx: _doubt(tx, one, problem))
        return
    state = SweepState.DONE if found is Fate.PAID else SweepState.DEAD
    if await desk.run(lambda tx: _end(tx, one, state, desk.now_ms())):
        log.info("deposits.swept" if found is Fate.PAID else "deposits.sweep_missed", extra={"tx": one.tx_id})
        await barriers.reach(Barrier.SWEEP_ENDED)


async def _doubt(tx: Tx, one: Sweep, problem: str) -> None:
    changed = await execute(
        tx, "UPDATE sweep SET problem = $2 WHERE id = $1 AND problem <> $2", one.id, problem[:PROBLEM_MAX]
    )
    if changed:
        log.error("deposits.sweep_in_doubt", extra={"tx": one.tx_id, "problem": problem})


async def _end(tx: Tx, one: Sweep, state: SweepState, now_ms: int) -> bool:
    """Not before every tick that it covers is read: what it took along must be known first."""
    cursor = await value(tx, "SELECT cursor_tick FROM chain_state")
    if cursor is None or cursor < one.tick:
        return False
    ended = await execute(
        tx,
        "UPDATE sweep SET state = $2, ended_ms = $3, problem = '' WHERE id = $1 AND state = 'live'",
        one.id,
        state.value,
        now_ms,
    )
    if ended and state is SweepState.DONE:
        await execute(
            tx,
            "UPDATE deposit SET state = 'swept', sweep_id = $1 WHERE identity_no = $2 AND state = 'credited'"
            " AND tick <= $3",
            one.id,
            one.identity_no,
            one.covers_tick,
        )
    return bool(ended)


# The treasury's balances --------------------------------------------------------------------------------------------


async def note_balance(tx: Tx, balance: Balance, role: str) -> None:
    """What the network last said is on an identity of ours; the hot one's row is made at the first start."""
    await execute(
        tx,
        "INSERT INTO treasury (public_key, role) SELECT $1, $2 WHERE $2 = 'deposit' ON CONFLICT DO NOTHING",
        balance.public_key,
        role,
    )
    await execute(
        tx,
        "UPDATE treasury SET balance_qu = $2, incoming_qu = $3, outgoing_qu = $4, outgoing_count = $5, tick = $6,"
        " checked_at = now() WHERE public_key = $1 AND tick <= $6",
        balance.public_key,
        balance.amount_qu,
        balance.incoming_qu,
        balance.outgoing_qu,
        balance.outgoing_count,
        balance.valid_for_tick,
    )


async def look_at_holdings(desk: ChainDesk) -> None:
    """The hot identity, and every deposit identity that had something when it was last looked at. Raises ChainError."""
    due = await desk.db.fetch(
        "SELECT public_key, role FROM treasury WHERE role = 'hot' OR balance_qu > 0 ORDER BY role DESC, checked_at"
        " LIMIT $1",
        BATCH,
    )
    for row in due:
        balance = await desk.chain.balance(bytes(row["public_key"]))
        role = str(row["role"])
        await desk.run(lambda tx, balance=balance, role=role: note_balance(tx, balance, role))  # type: ignore[misc]
