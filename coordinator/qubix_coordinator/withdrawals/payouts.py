# SPDX-License-Identifier: Apache-2.0
"""Standing orders: what can be withdrawn above what is to stay goes out by itself, one withdrawal at a time."""

import logging
from uuid import UUID, uuid4

from qubix_chain import identity
from qubix_coordinator.db.database import Tx, rows
from qubix_coordinator.errors import InvalidInput, Refused
from qubix_coordinator.ledger.read import lock_account
from qubix_coordinator.withdrawals import addresses, limits, rules, service
from qubix_coordinator.withdrawals.desk import Desk
from qubix_coordinator.withdrawals.tables import PayoutAddress, PayoutOrder, Withdrawal
from qubix_protocol.withdrawals import PayoutBody, PayoutView

log = logging.getLogger(__name__)
AGAIN_MS = 60_000
BATCH = 64


async def set_order(desk: Desk, account_id: UUID, body: PayoutBody) -> PayoutView:
    """In place of any other. The same order again goes on as it is. Raises InvalidInput, Forbidden."""
    least_qu = max(body.least_qu, desk.settings.withdrawal_min_qu)
    if least_qu > desk.settings.withdrawal_max_qu:
        raise InvalidInput(
            "least_qu",
            f"one withdrawal takes at most {desk.settings.withdrawal_max_qu} QU",
            f"Use at most {desk.settings.withdrawal_max_qu}",
        )

    async def step(tx: Tx) -> PayoutView:
        await lock_account(tx, account_id)
        address = await addresses.usable(tx, account_id, body.destination)
        known = await PayoutOrder.filter(account_id=account_id).using_db(tx).select_for_update().first()
        asked = (address.id, body.keep_qu, least_qu)
        if known is not None and (known.address_id, known.keep_qu, known.least_qu) == asked:
            return await _view(tx, known)
        await PayoutOrder.filter(account_id=account_id).using_db(tx).delete()
        now_ms = desk.now_ms()
        row = PayoutOrder(
            account_id=account_id,
            id=uuid4(),
            address_id=address.id,
            keep_qu=body.keep_qu,
            least_qu=least_qu,
            since_ms=now_ms,
            next_ms=now_ms,
        )
        await row.save(using_db=tx, force_create=True)
        return await _view(tx, row)

    return await desk.db.run(step)


async def get_order(desk: Desk, account_id: UUID) -> PayoutView:
    async def step(tx: Tx) -> PayoutView:
        return await _view(tx, await PayoutOrder.filter(account_id=account_id).using_db(tx).first())

    return await desk.db.run(step)


async def stop_order(desk: Desk, account_id: UUID) -> PayoutView:
    """What it has made goes on; stopping what is not there is fine."""

    async def step(tx: Tx) -> PayoutView:
        await lock_account(tx, account_id)
        await PayoutOrder.filter(account_id=account_id).using_db(tx).delete()
        return await _view(tx, None)

    return await desk.db.run(step)


async def _view(tx: Tx, row: PayoutOrder | None) -> PayoutView:
    if row is None:
        return PayoutView(text="There is no standing order: nothing is paid out by itself.")
    address = await PayoutAddress.filter(id=row.address_id).using_db(tx).get()
    what = f"What can be withdrawn above {row.keep_qu} QU is paid out as soon as it is {row.least_qu} QU or more."
    return PayoutView(
        destination=identity.encode(bytes(address.public_key)),
        keep_qu=row.keep_qu,
        least_qu=row.least_qu,
        since_ms=row.since_ms,
        made=row.made,
        text=f"{what} Now: {row.problem}." if row.problem else what,
    )


async def due(tx: Tx, now_ms: int) -> list[UUID]:
    found = await rows(
        tx, "SELECT account_id FROM payout_order WHERE next_ms <= $1 ORDER BY next_ms LIMIT $2", now_ms, BATCH
    )
    return [row["account_id"] for row in found]


async def pay_out(desk: Desk, tx: Tx, account_id: UUID) -> None:
    """At most one withdrawal; its key counts with the order, in the same transaction, so that none is made twice."""
    await lock_account(tx, account_id)
    row = await PayoutOrder.filter(account_id=account_id).using_db(tx).select_for_update().first()
    now_ms = desk.now_ms()
    if row is None or row.next_ms > now_ms:
        return
    row.next_ms, row.problem = now_ms + AGAIN_MS, ""
    address = await PayoutAddress.filter(id=row.address_id, removed_ms__isnull=True).using_db(tx).first()
    if address is None:
        row.problem = "its address was taken off the list; set the order anew with another one"
    elif not await _under_way(tx, row):
        try:
            await _pay_out(desk, tx, row, address)
        except Refused as problem:
            row.problem = str(problem)[:500]
    await row.save(using_db=tx)


async def _under_way(tx: Tx, row: PayoutOrder) -> bool:
    found = Withdrawal.filter(account_id=row.account_id, automatic=True, ended_ms__isnull=True)
    return await found.using_db(tx).exists()


async def _pay_out(desk: Desk, tx: Tx, row: PayoutOrder, address: PayoutAddress) -> None:
    """Nothing here is refused by the database: the amount is what the limits leave."""
    settings = desk.settings
    day_left_qu = settings.withdrawal_day_max_qu - await limits.asked_today_qu(tx, row.account_id, desk.now_ms())
    found = await limits.means(desk, tx, row.account_id)
    amount_qu = rules.payout_qu(
        found.withdrawable_qu,
        keep_qu=row.keep_qu,
        least_qu=row.least_qu,
        most_qu=min(settings.withdrawal_max_qu, day_left_qu),
    )
    if amount_qu == 0:
        return
    await addresses.check_payable(tx, bytes(address.public_key), "destination")
    await limits.check_amount(desk, tx, row.account_id, amount_qu)
    await service.store(desk, tx, address, amount_qu, f"{service.PAYOUT_KEYS}{row.id}:{row.made}", automatic=True)
    row.made += 1
    log.info("withdrawal.paid_out", extra={"account": str(row.account_id), "amount_qu": amount_qu})
