# SPDX-License-Identifier: Apache-2.0
"""The coordinator's share: deadlines, why each withdrawal waits, standing orders. Signing is the chain process's.

Replicas run one each on the same database: every step is one transaction that looks again under the row's lock.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from qubix_coordinator.db.database import Tx, rows
from qubix_coordinator.errors import Unavailable
from qubix_coordinator.withdrawals import addresses, flow, payouts, waiting
from qubix_coordinator.withdrawals.desk import Desk
from qubix_coordinator.withdrawals.rules import Event
from qubix_coordinator.withdrawals.tables import PayoutAddress, Withdrawal
from qubix_protocol.withdrawals import WithdrawalReason, WithdrawalState

log = logging.getLogger(__name__)
TICK_S: Final = 1.0
BATCH: Final = 200


class Engine:
    """`await Engine(desk).run()` in the app's task group; cancelling it is safe at any moment."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def run(self) -> None:
        await self._desk.db.every(TICK_S, self.tick)

    async def tick(self) -> None:
        """One round of everything; tests call it directly with a clock of their own."""
        await self._fire_due()
        await self._explain()
        await self._pay_out()

    async def _fire_due(self) -> None:
        desk = self._desk

        async def due(tx: Tx) -> list[UUID]:
            found = await rows(
                tx, "SELECT id FROM withdrawal WHERE due_ms <= $1 ORDER BY due_ms LIMIT $2", desk.now_ms(), BATCH
            )
            return [row["id"] for row in found]

        async def fire(tx: Tx, withdrawal_id: UUID) -> None:
            row = await flow.lock(tx, withdrawal_id)
            if row.due_ms is not None and row.due_ms <= desk.now_ms():
                await flow.step(desk, tx, row, Event.DUE, detail=row.detail)

        for withdrawal_id in await desk.db.run(due):
            await self._each("due", withdrawal_id, fire)

    async def _explain(self) -> None:
        """Writes, and tells, only what has changed: the first ones in line, and those whose delay has ended."""
        desk = self._desk
        stale = await desk.db.run(self._to_explain)
        for withdrawal_id in stale:
            await self._each("explain", withdrawal_id, lambda tx, key: explain(desk, tx, key))

    async def _to_explain(self, tx: Tx) -> list[UUID]:
        wallet = await waiting.wallet(self._desk, tx)
        found = await Withdrawal.filter(state=WithdrawalState.WAITING.value).using_db(tx).order_by("no").limit(BATCH)
        told = [(row, await waiting.reason_of(self._desk, tx, row, wallet)) for row in found]
        changed = [row.id for row, reason in told if row.reason != (reason or WithdrawalReason.IN_LINE).value]
        return changed + await _to_removed_addresses(tx)

    async def _pay_out(self) -> None:
        desk = self._desk
        for account_id in await desk.db.run(lambda tx: payouts.due(tx, desk.now_ms())):
            await self._each("payout", account_id, lambda tx, key: payouts.pay_out(desk, tx, key))

    async def _each(self, what: str, key: UUID, step: Callable[[Tx, UUID], Awaitable[None]]) -> None:
        """One row that cannot be moved is logged and must not stop the others; the database being away does."""
        try:
            await self._desk.db.run(lambda tx: step(tx, key))
        except Unavailable:
            raise
        except Exception:  # whatever is wrong with one row, the others go on
            log.exception("withdrawal.step_failed", extra={"step": what, "key": str(key)})


async def _to_removed_addresses(tx: Tx) -> list[UUID]:
    """Those whose transaction expired after their address was taken off the list."""
    found = await rows(
        tx,
        "SELECT w.id FROM withdrawal w JOIN payout_address a ON a.id = w.address_id"
        " WHERE w.state = 'waiting' AND a.removed_ms IS NOT NULL ORDER BY w.no LIMIT $1",
        BATCH,
    )
    return [row["id"] for row in found]


async def explain(desk: Desk, tx: Tx, withdrawal_id: UUID) -> None:
    row = await flow.lock(tx, withdrawal_id)
    if row.state != WithdrawalState.WAITING.value:
        return
    if await PayoutAddress.filter(id=row.address_id, removed_ms__isnull=False).using_db(tx).exists():
        await addresses.cancel_removed(desk, tx, row)
        return
    reason = await waiting.reason_of(desk, tx, row) or WithdrawalReason.IN_LINE
    if row.reason != reason.value:
        await flow.step(desk, tx, row, Event.EXPLAIN, reason=reason, detail=row.detail)
