# SPDX-License-Identifier: Apache-2.0
"""The keys of an account's orders as the API shows them. Statements are verified here, before any transaction."""

import logging
from typing import TypeVar

from qubix_chain import identity as identities
from qubix_coordinator.accounts import order_key_rules, order_keys, signatures, wallets
from qubix_coordinator.accounts.challenges import Challenge, use
from qubix_coordinator.accounts.order_keys import NOBODY, OrderKey, Signer, Source
from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import Forbidden, InvalidInput
from qubix_coordinator.http import wallets as wallet_doors
from qubix_coordinator.http.context import Context
from qubix_coordinator.http.wallets import Asked, ms_of
from qubix_coordinator.ledger.tell import emit_account
from qubix_protocol import digests, envelope
from qubix_protocol.envelope import Opened
from qubix_protocol.errors import ProtocolError, WrongAudience
from qubix_protocol.messages import Message, OrderKeyApproval, OrderKeyRequest, OrderKeyRevocation, WalletApproval
from qubix_protocol.order_keys import (
    OrderKeyBody,
    OrderKeyRevocationBody,
    OrderKeysView,
    OrderKeyView,
    WalletApprovalBody,
)
from qubix_protocol.wallet_text import Purpose
from qubix_protocol.wallets import SignedBody, WalletsView

log = logging.getLogger(__name__)
M = TypeVar("M", bound=Message)


async def view(context: Context, who: Principal) -> OrderKeysView:
    async def step(tx: Tx) -> OrderKeysView:
        keys = await order_keys.keys_of(tx, who.account_id)
        approves = any(one.approves_keys for one in await wallets.wallets_of(tx, who.account_id))
        return OrderKeysView(signed=bool(keys), wallet_approves=approves, keys=tuple(map(_key, keys)))

    return await context.db.run(step)


async def add(context: Context, asked: Asked, who: Principal, body: OrderKeyBody) -> OrderKeysView:
    """Raises InvalidInput, ApprovalNeeded, OrderKeyRevoked, Conflict, and what a proof or a statement lacks."""
    if body.approval and body.wallet is not None:
        raise InvalidInput("wallet", "a key and a wallet both sign for it", "Send one of the two")
    asking = _request(context, body.request)
    request = asking.body(OrderKeyRequest)
    _own_account(who, request.account_id, "request")
    signer, proof = NOBODY, None
    if body.wallet is not None:
        proof = await _by_wallet(context, asked, who, body.wallet, Purpose.ADD_ORDER_KEY, asking.header.sender)
    elif body.approval:
        signer = _approver(context, who, body.approval, asking.raw)

    async def step(tx: Tx) -> None:
        by = signer if proof is None else await _wallet_of(context, tx, who, proof)
        key, now = asking.header.sender, context.clock.now()
        if await order_keys.add(tx, who.account_id, key, name=request.name, kind=request.kind, signer=by, now=now):
            await emit_account(tx, who.account_id)
            log.info("order_key.added", extra={"account_id": str(who.account_id), "by": by.way.value})

    await context.db.run(step)
    return await view(context, who)


async def revoke(
    context: Context, asked: Asked, who: Principal, public_key: bytes, body: OrderKeyRevocationBody
) -> OrderKeysView:
    """Raises NotFound, ApprovalNeeded, and what a wallet's proof or a statement lacks."""
    if body.statement and body.wallet is not None:
        raise InvalidInput("wallet", "a key and a wallet both sign for it", "Send one of the two")
    signer, proof = NOBODY, None
    if body.wallet is not None:
        proof = await _by_wallet(context, asked, who, body.wallet, Purpose.REVOKE_ORDER_KEY, public_key)
    elif body.statement:
        opened, said = _opened(context, body.statement, OrderKeyRevocation, "statement")
        _own_account(who, said.account_id, "statement")
        if said.public_key != public_key:
            raise InvalidInput("statement", "it revokes another key", "Name in it the key of the address")
        signer = Signer(key=opened.header.sender)

    async def step(tx: Tx) -> None:
        by = signer if proof is None else await _wallet_of(context, tx, who, proof)
        if await order_keys.revoke(tx, who.account_id, public_key, signer=by, now=context.clock.now()):
            await emit_account(tx, who.account_id)
            log.info("order_key.revoked", extra={"account_id": str(who.account_id), "by": by.way.value})

    await context.db.run(step)
    return await view(context, who)


async def approve_wallet(context: Context, who: Principal, identity: str, body: WalletApprovalBody) -> WalletsView:
    """Raises InvalidInput, NotFound, ApprovalNeeded, Conflict, and what the statement lacks."""
    wallet_key = signatures.key_of(identity)
    opened, said = _opened(context, body.statement, WalletApproval, "statement")
    _own_account(who, said.account_id, "statement")
    if said.identity != identity:
        raise InvalidInput("statement", "it approves another wallet", "Name in it the wallet of the address")

    async def step(tx: Tx) -> None:
        await wallets.approve(tx, who.account_id, wallet_key)
        await order_keys.require_live(tx, who.account_id, opened.header.sender)

    await context.db.run(step)
    log.info("wallet.approves_keys", extra={"account_id": str(who.account_id)})
    return await wallet_doors.view(context, who)


def _request(context: Context, text: str) -> Opened:
    """It may be as old as it takes to carry it to another machine: what it asks for is approved afterwards."""
    try:
        opened = envelope.read_evidence(bytes.fromhex(text), network=context.network, sender=None)
        _for_us(context, opened)
        asked_ms = opened.body(OrderKeyRequest).clock_ms
    except ProtocolError as problem:
        raise _unusable("request", problem) from problem
    if not order_key_rules.request_in_time(asked_ms, context.now_ms()):
        raise InvalidInput("request", "the key asked too long ago, or by a clock that is wrong", "Have it ask anew")
    return opened


def _approver(context: Context, who: Principal, text: str, request: bytes) -> Signer:
    opened, said = _opened(context, text, OrderKeyApproval, "approval")
    _own_account(who, said.account_id, "approval")
    if said.request_digest != digests.of_bytes(request):
        raise InvalidInput("approval", "it approves another request", "Sign for the request that you send")
    return Signer(key=opened.header.sender)


def _opened(context: Context, text: str, kind: type[M], field: str) -> tuple[Opened, M]:
    """A fresh statement of that kind for this coordinator alone."""
    try:
        opened = envelope.open_envelope(
            bytes.fromhex(text), network=context.network, audience=context.key.public, now_ms=context.now_ms()
        )
        _for_us(context, opened)
        return opened, opened.body(kind)
    except ProtocolError as problem:
        raise _unusable(field, problem) from problem


def _for_us(context: Context, opened: Opened) -> None:
    """Not to anyone, either."""
    if opened.header.audience != context.key.public:
        raise WrongAudience("it is not addressed to this coordinator")


def _unusable(field: str, problem: ProtocolError) -> InvalidInput:
    """Who asks is known: a statement that is not to be believed does not sign them out."""
    return InvalidInput(
        field, f"the signed statement cannot be used: {problem}", "Sign it anew, addressed to this coordinator"
    )


def _own_account(who: Principal, account_id: str, field: str) -> None:
    if account_id != str(who.account_id):
        raise Forbidden(
            "it was signed for another account",
            field=field,
            remedy="Sign in to the account that it names, or sign for the one that is signed in",
        )


async def _by_wallet(
    context: Context, asked: Asked, who: Principal, body: SignedBody, purpose: Purpose, public_key: bytes
) -> Challenge:
    """The challenge that was signed. It is not used up yet."""
    found = await wallet_doors.proved(context, asked, body, purpose)
    if found.account_id != who.account_id:
        raise Forbidden(
            "the wallet signed for another account",
            field="wallet.text",
            remedy="Ask for a challenge while signed in to this account, and sign that",
        )
    if found.order_key != public_key:
        raise InvalidInput("wallet.text", "the wallet signed for another key", "Sign a challenge that names this key")
    return found


async def _wallet_of(context: Context, tx: Tx, who: Principal, proof: Challenge) -> Signer:
    await use(tx, proof, context.clock.now())
    found = await wallets.wallet(tx, who.account_id, proof.public_key)
    if found is None:
        raise Forbidden(
            "this wallet is not bound to the account",
            field="wallet.identity",
            remedy="Choose a wallet that GET /api/v1/wallets lists with `approves_keys`",
        )
    return Signer(wallet_id=found.wallet_id)


def _key(found: OrderKey) -> OrderKeyView:
    added, revoker = found.added, found.revoker
    return OrderKeyView(
        public_key=found.public_key.hex(),
        name=found.name,
        kind=found.kind,
        created_ms=ms_of(found.created),
        added_by=added.way,
        added_by_key=_hex(added),
        added_by_identity=_identity(added),
        last_used_ms=None if found.last_used is None else ms_of(found.last_used),
        revoked_ms=None if found.revoked is None else ms_of(found.revoked),
        revoked_by=None if revoker is None else revoker.way,
        revoked_by_key=None if revoker is None else _hex(revoker),
        revoked_by_identity="" if revoker is None else _identity(revoker),
    )


def _hex(source: Source) -> str | None:
    return None if source.key is None else source.key.hex()


def _identity(source: Source) -> str:
    return "" if source.wallet is None else identities.encode(source.wallet)
