# SPDX-License-Identifier: Apache-2.0
"""Where an account's QU may go: wallets bound to it that are on its list.

Adding one takes effect after a delay, removing one at once.
"""

import logging
from uuid import UUID, uuid4

from qubix_chain import identity
from qubix_coordinator.accounts import wallets
from qubix_coordinator.db.database import Tx
from qubix_coordinator.deposits import read as deposits
from qubix_coordinator.errors import Forbidden, InvalidInput, LimitExceeded, NotFound
from qubix_coordinator.ledger.read import lock_account
from qubix_coordinator.withdrawals import flow, rules, views
from qubix_coordinator.withdrawals.desk import Desk
from qubix_coordinator.withdrawals.rules import Event
from qubix_coordinator.withdrawals.tables import PayoutAddress, Withdrawal
from qubix_protocol.withdrawals import AddressBody, AddressesView, AddressView, WithdrawalState

log = logging.getLogger(__name__)
ADDRESSES_MAX = 20
_LIST = "List yours with GET /account/addresses"


def key_of(text: str, field: str) -> bytes:
    """The public key of an identity. Raises InvalidInput that says which rule it breaks."""
    try:
        return identity.decode(text)
    except ValueError as problem:
        raise InvalidInput(
            field, f"this is no identity: {problem}", "Copy the 60 capital letters from your wallet"
        ) from None


async def add(desk: Desk, account_id: UUID, body: AddressBody) -> AddressView:
    """Adding again what is there changes nothing. Raises InvalidInput, Forbidden (never to be paid),
    NotFound (no wallet bound to the account), LimitExceeded."""
    public_key = key_of(body.identity, "identity")

    async def step(tx: Tx) -> AddressView:
        await lock_account(tx, account_id)
        await check_payable(tx, public_key, "identity")
        await wallets.payee(tx, account_id, public_key)
        known = await find(tx, account_id, public_key)
        return views.address_view(known or await _add(desk, tx, account_id, public_key, body.label))

    return await desk.db.run(step)


async def _add(desk: Desk, tx: Tx, account_id: UUID, public_key: bytes, label: str) -> PayoutAddress:
    if await PayoutAddress.filter(account_id=account_id, removed_ms__isnull=True).using_db(tx).count() >= ADDRESSES_MAX:
        raise LimitExceeded(
            f"an account lists at most {ADDRESSES_MAX} addresses", field="identity", remedy="Remove one"
        )
    now_ms = desk.now_ms()
    row = PayoutAddress(
        id=uuid4(),
        account_id=account_id,
        public_key=public_key,
        label=label,
        added_ms=now_ms,
        usable_ms=now_ms + desk.settings.withdrawal_address_delay_s * 1000,
    )
    await row.save(using_db=tx, force_create=True)
    log.info("withdrawal.address_added", extra={"account": str(account_id), "usable_ms": row.usable_ms})
    return row


async def check_payable(tx: Tx, public_key: bytes, field: str) -> None:
    """Raises Forbidden for what we must never pay: nobody, a contract, ourselves."""
    problem = rules.not_payable(public_key)
    if not problem and await deposits.is_ours(tx, public_key):
        problem = "it is an identity of this market itself"
    if problem:
        raise Forbidden(f"QU are never sent there: {problem}", field=field, remedy="Use an identity of your own wallet")


async def find(tx: Tx, account_id: UUID, public_key: bytes) -> PayoutAddress | None:
    found = PayoutAddress.filter(account_id=account_id, public_key=public_key, removed_ms__isnull=True)
    return await found.using_db(tx).first()


async def usable(tx: Tx, account_id: UUID, destination: str) -> PayoutAddress:
    """The listed address, which may still be in its delay. Raises InvalidInput, Forbidden."""
    public_key = key_of(destination, "destination")
    await check_payable(tx, public_key, "destination")
    row = await find(tx, account_id, public_key)
    if row is None:
        raise Forbidden(
            "the destination is not on your list of addresses",
            field="destination",
            remedy="Add it with POST /account/addresses; it can be used after a delay",
        )
    await wallets.payee(tx, account_id, public_key)
    return row


async def listed(desk: Desk, account_id: UUID) -> AddressesView:
    async def step(tx: Tx) -> AddressesView:
        found = PayoutAddress.filter(account_id=account_id, removed_ms__isnull=True).using_db(tx)
        return AddressesView(addresses=tuple(views.address_view(row) for row in await found.order_by("added_ms", "id")))

    return await desk.db.run(step)


async def remove(desk: Desk, account_id: UUID, text: str) -> AddressesView:
    """At once: what waits for it is cancelled, and what is signed already is not signed again. Raises NotFound."""
    public_key = key_of(text, "identity")

    async def step(tx: Tx) -> None:
        await lock_account(tx, account_id)
        row = await find(tx, account_id, public_key)
        if row is None:
            raise NotFound("this identity is not on your list", field="identity", remedy=_LIST)
        row.removed_ms = desk.now_ms()
        await row.save(using_db=tx, update_fields=["removed_ms"])
        waiting = Withdrawal.filter(address_id=row.id, state=WithdrawalState.WAITING.value).using_db(tx)
        for one in await waiting.select_for_update().order_by("no"):
            await cancel_removed(desk, tx, one)

    await desk.db.run(step)
    return await listed(desk, account_id)


async def cancel_removed(desk: Desk, tx: Tx, row: Withdrawal) -> None:
    await flow.step(desk, tx, row, Event.CANCEL, detail="its address was taken off the list")


async def open_to(tx: Tx, account_id: UUID, public_key: bytes) -> list[UUID]:
    """Withdrawals of the account to this identity that have not ended."""
    found = Withdrawal.filter(account_id=account_id, destination=public_key, ended_ms__isnull=True)
    return [row.id for row in await found.using_db(tx).order_by("no")]
