# SPDX-License-Identifier: Apache-2.0
"""The chain process's share: signs the next withdrawal, sends it, and learns what became of it (trust.md Q2).

    choose by age → sign, and store it before anybody sees it → broadcast until its tick → watch → paid, or dead

One transaction at a time: while one may run, nothing else is signed; the database holds it so whoever else signs.
Killed anywhere, the next start goes on from what is stored.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar
from uuid import UUID

from qubix_chain.rpc.errors import (
    ChainError,
    Disagreement,
    RefusedByNetwork,
    Unreachable,
    Untrusted,
)
from qubix_chain.rpc.types import Balance, TickInfo
from qubix_coordinator.db.database import Tx, execute, rows, value
from qubix_coordinator.deposits.ports import Chain, Signed, Signer
from qubix_coordinator.deposits.rules import Fate, Told, Totals, aim, fate, moved
from qubix_coordinator.deposits.told import ask, totals_of
from qubix_coordinator.withdrawals import addresses, flow, limits, rules, waiting
from qubix_coordinator.withdrawals.desk import Desk
from qubix_coordinator.withdrawals.rules import Event
from qubix_coordinator.withdrawals.tables import PayoutAddress, WithdrawalTx
from qubix_protocol import barriers
from qubix_protocol.barriers import Barrier
from qubix_protocol.withdrawals import TxOutcome, WithdrawalReason, WithdrawalState

log = logging.getLogger(__name__)
T = TypeVar("T")
PAUSE_S: Final = 1.0
AGAIN_TICKS: Final = 3
"""The same bytes go out again after so many ticks, until their own is there."""
TICKS_APART_MAX: Final = 100
"""Sources further apart than this are not of one network, or one of them makes ticks up."""
PROBLEM_MAX: Final = 500
_OUTCOMES: Final = {
    Fate.PAID: TxOutcome.PAID,
    Fate.EXPIRED: TxOutcome.EXPIRED,
    Fate.MOVED_NOTHING: TxOutcome.MOVED_NOTHING,
}
_WHY_DEAD: Final = {
    Fate.EXPIRED: "tick {tick} is over without transaction {tx_id}: it can never run",
    Fate.MOVED_NOTHING: "transaction {tx_id} was listed in tick {tick} and moved nothing",
}


class Run(Protocol):
    async def __call__(self, step: Callable[[Tx], Awaitable[T]]) -> T: ...


class Aimed(NamedTuple):
    """What a signature rests on: the totals before it, its tick and epoch, and what the wallet holds."""

    known: Totals
    target: int
    epoch: int
    balance_qu: int


class Sender:
    """`sources` are independent of each other, each with its own word for everything: what is done needs all of them.

    `run` runs a step in a transaction of its own, and may add what makes sure that this process alone signs.
    """

    def __init__(self, desk: Desk, sources: Sequence[Chain], signer: Signer, run: Run | None = None) -> None:
        if not sources:
            raise ValueError("at least one source is needed")
        self._desk = desk
        self._sources = tuple(sources)
        self._signer = signer
        self._hot: Final = signer.hot_public_key
        self._in_transaction: Run = run or desk.db.run
        self._sent_at: dict[str, int] = {}

    async def run(self) -> None:
        """Until cancelled, which is safe at any moment."""
        await self._desk.db.every(PAUSE_S, self.tick)

    async def tick(self) -> None:
        """One look at everything; whatever the network does, nothing is raised but what the database does."""
        try:
            info = await self._now()
            await self._watch(info.tick)
            await self._sign_next(info)
        except ChainError as error:
            problem = str(error) or type(error).__name__
            await self._in_transaction(lambda tx: self._note_problem(tx, problem))

    async def _now(self) -> TickInfo:
        """The furthest that any source tells of. Raises Disagreement when they are far apart."""
        told = sorted([await source.tick_info() for source in self._sources], key=lambda one: one.tick)
        if told[-1].tick - told[0].tick > TICKS_APART_MAX:
            raise Disagreement(f"one source is at tick {told[0].tick}, another at {told[-1].tick}")
        return told[-1]

    # What is on its way --------------------------------------------------------------------------------------------

    async def _watch(self, tick: int) -> None:
        for row in await self._desk.db.run(_live):
            if tick < row.tick:
                await self._send(row, tick)
            else:
                await self._decide(row, tick)

    async def _send(self, row: WithdrawalTx, tick: int) -> None:
        """The same bytes as often as needed: they can run in one tick only, and once."""
        if tick < self._sent_at.get(row.tx_id, -AGAIN_TICKS) + AGAIN_TICKS:
            return
        taken = False
        for source in self._sources:
            try:
                await source.broadcast(bytes(row.signed_bytes))
                taken = True
            except RefusedByNetwork as problem:
                log.warning("withdrawal.not_taken", extra={"tx": row.tx_id, "problem": str(problem)})
            except (Unreachable, Untrusted) as problem:
                # It may have been taken or not: the archive will tell.
                log.warning("withdrawal.not_sent", extra={"tx": row.tx_id, "problem": str(problem)})
        if taken:
            self._sent_at = {row.tx_id: tick}
            await barriers.reach(Barrier.WITHDRAWAL_SENT)
            await self._in_transaction(lambda tx: self._note_sent(tx, row))

    async def _note_sent(self, tx: Tx, row: WithdrawalTx) -> None:
        withdrawal = await flow.lock(tx, row.withdrawal_id)
        if await _still_live(tx, row.tx_id):
            await flow.step(self._desk, tx, withdrawal, Event.SENT)

    async def _decide(self, row: WithdrawalTx, tick: int) -> None:
        told: list[Told] = []
        try:
            told = [await ask(source, _signed(row)) for source in self._sources]
            found = fate(row.tick, _before(row), told)
        except Untrusted:
            log.exception("withdrawal.untrusted", extra={"tx": row.tx_id})
            found = Fate.DOUBT
        if found in _OUTCOMES:
            await barriers.reach(Barrier.WITHDRAWAL_FOUND)
            await self._in_transaction(lambda tx: self._record(tx, row, found, told))
            await barriers.reach(Barrier.WITHDRAWAL_ENDED)
        else:
            reason = rules.open_reason(row.tick, tick, found)
            await self._in_transaction(lambda tx: self._explain(tx, row, reason))

    async def _record(self, tx: Tx, row: WithdrawalTx, found: Fate, told: Sequence[Told]) -> None:
        withdrawal = await flow.lock(tx, row.withdrawal_id)
        if not await _still_live(tx, row.tx_id):
            return
        await self._write_outcome(tx, row, found, told)
        if found is Fate.PAID:
            await flow.step(self._desk, tx, withdrawal, Event.PAID)
        else:
            detail = _WHY_DEAD[found].format(tick=row.tick, tx_id=row.tx_id)
            await flow.step(self._desk, tx, withdrawal, Event.DEAD, detail=detail)

    async def _write_outcome(self, tx: Tx, row: WithdrawalTx, found: Fate, told: Sequence[Told]) -> None:
        row.outcome, row.decided_ms = _OUTCOMES[found].value, self._desk.now_ms()
        row.evidence = [_evidence(one) for one in told]
        await row.save(using_db=tx, update_fields=["outcome", "decided_ms", "evidence"])

    async def _explain(self, tx: Tx, row: WithdrawalTx, reason: WithdrawalReason) -> None:
        withdrawal = await flow.lock(tx, row.withdrawal_id)
        if withdrawal.reason != reason.value and await _still_live(tx, row.tx_id):
            await flow.step(self._desk, tx, withdrawal, Event.EXPLAIN, reason=reason, detail=withdrawal.detail)

    # The next one --------------------------------------------------------------------------------------------------

    async def _sign_next(self, info: TickInfo) -> None:
        """Signs at most one, and sends it."""
        balances = [await source.balance(self._hot) for source in self._sources]
        end_tick = await self._epoch_end_tick()
        room = self._aim(info, end_tick) is not None
        await self._in_transaction(lambda tx: self._note_wallet(tx, balances, info, room))
        totals = [totals_of(balance) for balance in balances]
        if not room or any(not one.same_as(totals[0]) for one in totals):
            return
        known = Totals(totals[0].outgoing_qu, totals[0].outgoing_count, min(one.tick for one in totals))
        balance_qu = min(balance.amount_qu for balance in balances)
        candidate = await self._desk.db.run(lambda tx: self._candidate(tx, balance_qu))
        if candidate is None or await self._ran_after_all(candidate):
            return
        # Ticks have gone by with all this; from here to the broadcast nothing else is asked.
        info = await self._now()
        target = self._aim(info, end_tick)
        if target is None or known.tick >= target:
            return
        aimed = Aimed(known, target, info.epoch, balance_qu)
        signed = await self._in_transaction(lambda tx: self._sign(tx, candidate, aimed))
        if signed is not None:
            await barriers.reach(Barrier.WITHDRAWAL_SIGNED)
            await self._send(signed, info.tick)

    def _aim(self, info: TickInfo, end_tick: int | None) -> int | None:
        return aim(info.tick, self._desk.settings.withdrawal_ticks_ahead, epoch_end_tick=end_tick)

    async def _epoch_end_tick(self) -> int | None:
        """The earliest that any source thinks possible."""
        told = [(await source.epoch_end()).tick_min for source in self._sources]
        return min((tick for tick in told if tick is not None), default=None)

    async def _candidate(self, tx: Tx, balance_qu: int) -> UUID | None:
        """The oldest that could go now; whoever waits for something else holds up nobody."""
        if await waiting.in_flight(tx):
            return None
        found = await value(
            tx,
            "SELECT id FROM withdrawal WHERE state = 'waiting' AND not_before_ms <= $1 AND amount_qu <= $2"
            " AND (approved_ms IS NOT NULL OR (amount_qu <= $3 AND amount_qu <= $4)) ORDER BY no LIMIT 1",
            self._desk.now_ms(),
            balance_qu,
            self._desk.settings.withdrawal_approval_above_qu,
            await limits.left_today_qu(self._desk, tx),
        )
        return None if found is None else UUID(str(found))

    async def _sign(self, tx: Tx, withdrawal_id: UUID, aimed: Aimed) -> WithdrawalTx | None:
        """Stored with the state in one transaction. None when it is not its turn any more."""
        desk = self._desk
        row = await flow.lock(tx, withdrawal_id)
        if row.state != WithdrawalState.WAITING.value or not await self._up_to_date(tx, aimed.known):
            return None
        if await PayoutAddress.filter(id=row.address_id, removed_ms__isnull=False).using_db(tx).exists():
            await addresses.cancel_removed(desk, tx, row)
            return None
        wallet = rules.Wallet(True, aimed.balance_qu, True, await limits.left_today_qu(desk, tx))
        if await waiting.reason_of(desk, tx, row, wallet) is not None:
            return None
        signed = self._signer.sign_payment(
            destination=bytes(row.destination), amount_qu=row.amount_qu, tick=aimed.target
        )
        stored = self._row_of(signed, withdrawal_id, row.tries + 1, aimed)
        await stored.save(using_db=tx, force_create=True)
        row.tries += 1
        await flow.step(desk, tx, row, Event.SIGN)
        return stored

    async def _up_to_date(self, tx: Tx, known: Totals) -> bool:
        """The totals must count everything that this wallet has paid, or the next proof would rest on old ones."""
        last = await value(tx, "SELECT max(tick) FROM withdrawal_tx WHERE hot_key = $1", self._hot)
        return last is None or known.tick >= last

    def _row_of(self, signed: Signed, withdrawal_id: UUID, no: int, aimed: Aimed) -> WithdrawalTx:
        return WithdrawalTx(
            tx_id=signed.tx_id,
            withdrawal_id=withdrawal_id,
            no=no,
            hot_key=signed.source,
            destination=signed.destination,
            amount_qu=signed.amount_qu,
            signed_bytes=signed.raw,
            tick=signed.tick,
            epoch=aimed.epoch,
            outgoing_qu=aimed.known.outgoing_qu,
            outgoing_count=aimed.known.outgoing_count,
            known_tick=aimed.known.tick,
            signed_ms=self._desk.now_ms(),
        )

    async def _ran_after_all(self, withdrawal_id: UUID) -> bool:
        """Looks once more for everything signed for it before: the last chance to see that a proof was wrong.

        While any source tells of one that ran, nothing is signed; it counts as paid when all do and the totals show it.
        """
        for row in await self._desk.db.run(lambda tx: _dead(tx, withdrawal_id)):
            claims = [await source.transaction_by_hash(row.tx_id) for source in self._sources]
            if not any(claim is not None and claim.money_flew for claim in claims):
                continue
            log.error("withdrawal.ran_after_all", extra={"tx": row.tx_id, "withdrawal": str(withdrawal_id)})
            told = [await ask(source, _signed(row)) for source in self._sources]
            if fate(row.tick, _before(row), told) is Fate.PAID:
                await self._in_transaction(lambda tx, row=row, told=told: self._pay_late(tx, row, told))  # type: ignore[misc]
            return True
        return False

    async def _pay_late(self, tx: Tx, row: WithdrawalTx, told: Sequence[Told]) -> None:
        withdrawal = await flow.lock(tx, row.withdrawal_id)
        later = await rows(
            tx,
            "SELECT count(*) AS count, coalesce(sum(amount_qu), 0)::bigint AS qu FROM withdrawal_tx"
            " WHERE hot_key = $1 AND outcome = 'paid' AND tick > $2",
            bytes(row.hot_key),
            row.tick,
        )
        counted = moved(_before(row), row.amount_qu + later[0]["qu"], 1 + later[0]["count"])
        if withdrawal.state == WithdrawalState.WAITING.value and all(one.totals.same_as(counted) for one in told):
            await self._write_outcome(tx, row, Fate.PAID, told)
            await flow.step(self._desk, tx, withdrawal, Event.PAID, detail=f"found later in tick {row.tick}")

    # What others see of it -----------------------------------------------------------------------------------------

    async def _note_wallet(self, tx: Tx, balances: Sequence[Balance], info: TickInfo, room: bool) -> None:
        told = {(balance.outgoing_qu, balance.outgoing_count) for balance in balances}
        problem = "" if len(told) == 1 else "the sources disagree on what the paying wallet has paid out"
        await _write_wallet(
            tx,
            self._hot,
            balance_qu=min(balance.amount_qu for balance in balances),
            tick=info.tick,
            epoch=info.epoch,
            room=room,
            problem=problem,
            now_ms=self._desk.now_ms(),
        )

    async def _note_problem(self, tx: Tx, problem: str) -> None:
        known = await rows(tx, "SELECT balance_qu, tick, epoch, room FROM hot_wallet WHERE public_key = $1", self._hot)
        last = known[0] if known else {"balance_qu": 0, "tick": 0, "epoch": 0, "room": False}
        await _write_wallet(tx, self._hot, **last, problem=problem, now_ms=self._desk.now_ms())


async def _write_wallet(
    tx: Tx, public_key: bytes, *, balance_qu: int, tick: int, epoch: int, room: bool, problem: str, now_ms: int
) -> None:
    await execute(
        tx,
        "INSERT INTO hot_wallet AS h (public_key, balance_qu, tick, epoch, room, seen_ms, problem, problem_ms)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, CASE WHEN $7 <> '' THEN $6::bigint END)"
        " ON CONFLICT (public_key) DO UPDATE SET balance_qu = excluded.balance_qu, tick = excluded.tick,"
        " epoch = excluded.epoch, room = excluded.room, seen_ms = excluded.seen_ms, problem = excluded.problem,"
        " problem_ms = CASE WHEN excluded.problem <> '' THEN coalesce(h.problem_ms, excluded.problem_ms) END",
        public_key,
        balance_qu,
        tick,
        epoch,
        room,
        now_ms,
        problem[:PROBLEM_MAX],
    )


async def _live(tx: Tx) -> list[WithdrawalTx]:
    return await WithdrawalTx.filter(outcome__isnull=True).using_db(tx).order_by("tick")


async def _dead(tx: Tx, withdrawal_id: UUID) -> list[WithdrawalTx]:
    return await WithdrawalTx.filter(withdrawal_id=withdrawal_id, outcome=TxOutcome.EXPIRED.value).using_db(tx)


async def _still_live(tx: Tx, tx_id: str) -> bool:
    return await WithdrawalTx.filter(tx_id=tx_id, outcome__isnull=True).using_db(tx).select_for_update().exists()


def _before(row: WithdrawalTx) -> Totals:
    return Totals(row.outgoing_qu, row.outgoing_count, row.known_tick)


def _signed(row: WithdrawalTx) -> Signed:
    return Signed(
        raw=bytes(row.signed_bytes),
        tx_id=row.tx_id,
        source=bytes(row.hot_key),
        destination=bytes(row.destination),
        amount_qu=row.amount_qu,
        tick=row.tick,
    )


def _evidence(one: Told) -> dict[str, object]:
    return {
        "processed_tick": one.processed_tick,
        "found": one.found,
        "flew": one.flew,
        "listed": one.listed,
        "outgoing_qu": one.totals.outgoing_qu,
        "outgoing_count": one.totals.outgoing_count,
        "totals_tick": one.totals.tick,
    }
