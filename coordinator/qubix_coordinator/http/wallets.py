# SPDX-License-Identifier: Apache-2.0
"""Wallets and sessions as the API shows them: challenge, sign-in, binding, and what each wallet may do."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from qubix_chain import identity as identities
from qubix_coordinator.accounts import challenges, order_keys, sessions, signatures, wallets
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.challenges import Challenge
from qubix_coordinator.accounts.rules import Scope, grantable
from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.accounts.sessions import Session
from qubix_coordinator.accounts.wallet_rules import BoundWallet
from qubix_coordinator.accounts.wallets import PaymentProof
from qubix_coordinator.db.database import Tx
from qubix_coordinator.deposits import pool
from qubix_coordinator.errors import Forbidden, InvalidInput, NotFound, WalletInUse
from qubix_coordinator.http.balances import OnChain
from qubix_coordinator.http.context import Context
from qubix_coordinator.ledger import read
from qubix_coordinator.withdrawals import addresses
from qubix_protocol import envelope
from qubix_protocol.messages import KeySignIn
from qubix_protocol.payment_uri import Payment
from qubix_protocol.units import FRAME_BYTES_MAX
from qubix_protocol.wallet_text import Purpose, is_domain
from qubix_protocol.wallets import (
    ChallengeBody,
    ChallengeView,
    EndedView,
    PaymentProofBody,
    PaymentProofView,
    SessionsView,
    SessionView,
    SignedBody,
    SignedInView,
    TokenBody,
    TokenView,
    WalletsView,
    WalletView,
)

log = logging.getLogger(__name__)
PAYMENT_HINT: Final = (
    "Send exactly this amount from the wallet itself, not from an exchange: an exchange pays from an address of its"
    " own, and pay-outs to that address would not reach you. The amount is added to your balance."
)


@dataclass(frozen=True, slots=True)
class Asked:
    """Where a request came from (`address`, see `rates.asker_of`) and under which name of ours (`domain`)."""

    address: str
    domain: str


def domain_of(host: str | None, origin: str | None) -> str:
    """What a person sees in the address bar: the page's host, or, asked without a page, the one that was called.

    The guard has let both pass. Raises InvalidInput for a name that is none.
    """
    named = (origin.partition("://")[2] if origin is not None else host or "").lower()
    if not is_domain(named):
        raise InvalidInput("Host", f"{named[:100]!r} is no host name", "Use the server's own address")
    return named


async def challenge(context: Context, asked: Asked, body: ChallengeBody, who: Principal | None) -> ChallengeView:
    """`who` asks, to bind or about a key; None: to sign in."""
    public_key = signatures.key_of(body.identity)
    if (body.order_key is not None) is not body.purpose.about_a_key:
        raise InvalidInput(
            "order_key", "a key is named where none is meant, or none where one is", "Name the key to add or revoke"
        )
    context.doors.challenge(asked.address, body.identity, context.clock.monotonic_s())
    await asyncio.to_thread(signatures.require_signer, public_key)
    made = await context.db.run(
        lambda tx: challenges.issue(
            tx,
            identity=body.identity,
            public_key=public_key,
            domain=asked.domain,
            network=context.network,
            address=asked.address,
            now=context.clock.now(),
            account_id=None if who is None else who.account_id,
            purpose=body.purpose,
            order_key=None if body.order_key is None else bytes.fromhex(body.order_key),
        )
    )
    return ChallengeView(
        text=made.text,
        identity=body.identity,
        domain=asked.domain,
        network=context.network,
        purpose=made.purpose,
        expires_ms=ms_of(made.expires),
    )


async def sign_in(context: Context, asked: Asked, body: SignedBody) -> SignedInView:
    signed = await proved(context, asked, body, Purpose.SIGN_IN)
    life = timedelta(seconds=context.settings.session_life_s)

    async def step(tx: Tx) -> SignedInView:
        wallet, created = await wallets.sign_in(tx, signed, name=f"wallet {body.identity[:8]}", now=context.clock.now())
        token, session_id = await sessions.start(tx, wallet, name=body.name, life=life)
        found = next(s for s in await sessions.sessions_of(tx, wallet.account_id) if s.session_id == session_id)
        return SignedInView(
            account_id=str(wallet.account_id), token=token, created=created, session=_session(found, session_id)
        )

    view = await context.db.run(step)
    log.info("wallet.signed_in", extra={"account_id": view.account_id, "new": view.created})
    return view


async def sign_in_by_key(context: Context, asked: Asked, raw: bytes) -> SignedInView:
    """For the holder of a key that speaks for an account already, such as a node's. Raises what `problems` tells about,
    NotFound for a key that nobody knows, OrderKeyRevoked."""
    opened = envelope.open_envelope(
        raw,
        network=context.network,
        audience=context.key.public,
        now_ms=context.now_ms(),
        limit_bytes=FRAME_BYTES_MAX,
    )
    sender, body = opened.header.sender, opened.body(KeySignIn)
    if opened.header.audience == envelope.ANYONE:
        raise InvalidInput("audience", "the statement is not addressed to this coordinator", "Name its key as audience")
    context.doors.sign_in(asked.address, sender.hex(), context.clock.monotonic_s())
    life = timedelta(seconds=context.settings.session_life_s)

    async def step(tx: Tx) -> SignedInView:
        account_id = await accounts.account_of_key(tx, sender)
        if account_id is None:
            raise NotFound("no account knows this key", field="sender", remedy="Start the node once, then sign in")
        signs = await order_keys.signs_in(tx, sender)
        token, session_id = await sessions.start_by_key(
            tx, account_id, raw, name=body.name, life=life, order_key=sender if signs else None
        )
        found = next(s for s in await sessions.sessions_of(tx, account_id) if s.session_id == session_id)
        return SignedInView(account_id=str(account_id), token=token, created=False, session=_session(found, session_id))

    view = await context.db.run(step)
    log.info("key.signed_in", extra={"account_id": view.account_id})
    return view


async def bind(context: Context, asked: Asked, who: Principal, body: SignedBody) -> WalletsView:
    signed = await proved(context, asked, body, Purpose.BIND)
    await context.db.run(lambda tx: wallets.bind(tx, signed, who.account_id, now=context.clock.now()))
    return await view(context, who)


async def proved(context: Context, asked: Asked, body: SignedBody, purpose: Purpose) -> Challenge:
    """The challenge that was signed. It is not used up yet."""
    public_key = signatures.key_of(body.identity)
    context.doors.sign_in(asked.address, body.identity, context.clock.monotonic_s())
    found = await context.db.run(
        lambda tx: challenges.signed(
            tx,
            body.text,
            identity=body.identity,
            domain=asked.domain,
            network=context.network,
            purpose=purpose,
            now=context.clock.now(),
        )
    )
    signature = bytes.fromhex(body.signature)
    await asyncio.to_thread(signatures.check, public_key, found.text, signature, body.scheme)
    return found


async def view(context: Context, who: Principal) -> WalletsView:
    now = context.clock.now()

    async def step(tx: Tx) -> tuple[list[BoundWallet], list[PaymentProof], bytes | None, read.Balance]:
        return (
            await wallets.wallets_of(tx, who.account_id),
            await wallets.open_payments(tx, who.account_id, now),
            await pool.identity_of(tx, who.account_id),
            await read.balance(tx, who.account_id),
        )

    bound, waiting, pay_to, money = await context.db.run(step)
    on_chain = await context.balances.of([found.public_key for found in bound])
    return WalletsView(
        wallets=tuple(map(_wallet, bound, on_chain)),
        waiting=() if pay_to is None else tuple(_payment(found, pay_to) for found in waiting),
        balance_qu=money.available_qu,
        held_qu=money.held_qu,
    )


def _wallet(found: BoundWallet, on_chain: OnChain) -> WalletView:
    return WalletView(
        identity=identities.encode(found.public_key),
        proof=found.proof.value,
        may_sign_in=found.may.sign_in,
        may_be_paid=found.may.be_paid,
        since_ms=ms_of(found.since),
        approves_keys=found.approves_keys,
        chain_balance_qu=on_chain.balance_qu,
        chain_tick=on_chain.tick,
        chain_problem=on_chain.problem,
    )


async def payment_proof(context: Context, who: Principal, body: PaymentProofBody) -> PaymentProofView:
    """The payment that would prove the wallet. Raises Unavailable while no deposit identity is free."""
    public_key = signatures.key_of(body.identity)
    await asyncio.to_thread(signatures.require_signer, public_key)

    async def step(tx: Tx) -> PaymentProofView:
        # Always credited, so that nobody pays for a proof.
        least_qu = context.settings.deposit_min_qu
        pay_to = await pool.assign(tx, who.account_id)
        if public_key == pay_to:
            raise InvalidInput(
                "identity", "this is the identity that you pay to", "Give the identity of the wallet that you pay from"
            )
        made = await wallets.ask_payment(tx, who.account_id, public_key, least_qu=least_qu, now=context.clock.now())
        return _payment(made, pay_to)

    return await context.db.run(step)


def _payment(found: PaymentProof, pay_to: bytes) -> PaymentProofView:
    payee = identities.encode(pay_to)
    return PaymentProofView(
        identity=identities.encode(found.public_key),
        amount_qu=found.amount_qu,
        pay_to=payee,
        uri=Payment(payee, found.amount_qu).uri(),
        expires_ms=ms_of(found.expires),
        hint=PAYMENT_HINT,
    )


async def unbind(context: Context, who: Principal, identity: str) -> WalletsView:
    public_key = signatures.key_of(identity)

    async def step(tx: Tx) -> None:
        found = await wallets.lock(tx, who.account_id, public_key)
        if waiting := await addresses.open_to(tx, who.account_id, public_key):
            raise WalletInUse(
                f"withdrawal {waiting[0]} to this wallet is open",
                field="identity",
                remedy="Wait until it has ended, or cancel it while it is waiting",
            )
        await wallets.unbind(tx, found, now=context.clock.now())

    await context.db.run(step)
    return await view(context, who)


async def list_sessions(context: Context, who: Principal) -> SessionsView:
    found = await context.db.run(lambda tx: sessions.sessions_of(tx, who.account_id))
    now = context.clock.now()
    return SessionsView(sessions=tuple(_session(session, who.token_id, now) for session in found))


async def make_token(context: Context, who: Principal, body: TokenBody) -> TokenView:
    """Raises InvalidInput for a scope that there is not, Forbidden for one that the asker has not, Conflict."""
    known = {scope.value: scope for scope in Scope}
    for name in body.scopes:
        if name not in known:
            raise InvalidInput("scopes", f"there is no scope {name!r}", f"Use {', '.join(sorted(known))}")
    scopes = {known[name] for name in body.scopes}
    if missing := scopes - grantable(who.scopes):
        raise Forbidden(
            f"you have not {' and '.join(sorted(missing))} yourself",
            field="scopes",
            remedy=f"Ask for {', '.join(sorted(grantable(who.scopes)))}",
        )
    life = None if body.life_s is None else timedelta(seconds=body.life_s)

    async def step(tx: Tx) -> TokenView:
        await accounts.lock_account(tx, who.account_id)
        token, token_id = await accounts.make_token(tx, who.account_id, scopes, body.name, life)
        found = next(one for one in await sessions.sessions_of(tx, who.account_id) if one.session_id == token_id)
        return TokenView(token=token, session=_session(found, who.token_id))

    view = await context.db.run(step)
    log.info("token.made", extra={"account_id": str(who.account_id), "scopes": sorted(scopes)})
    return view


async def end_session(context: Context, who: Principal, session_id: UUID) -> SessionsView:
    await context.db.run(lambda tx: sessions.revoke(tx, who.account_id, session_id))
    return await list_sessions(context, who)


async def end_sessions(context: Context, who: Principal, *, this_too: bool) -> EndedView:
    but = None if this_too else who.token_id
    return EndedView(ended=await context.db.run(lambda tx: sessions.revoke_all(tx, who.account_id, but=but)))


def _session(found: Session, current: UUID | None, now: datetime | None = None) -> SessionView:
    over = found.expires is not None and now is not None and found.expires <= now
    ended = found.revoked or (found.expires if over else None)
    return SessionView(
        session_id=str(found.session_id),
        name=found.name,
        scopes=found.scopes,
        created_ms=ms_of(found.created),
        last_used_ms=None if found.last_used is None else ms_of(found.last_used),
        expires_ms=None if found.expires is None else ms_of(found.expires),
        ended_ms=None if ended is None else ms_of(ended),
        identity="" if found.public_key is None else identities.encode(found.public_key),
        current=found.session_id == current,
        kind="token" if found.by_hand else "session",
    )


def ms_of(moment: datetime) -> int:
    """Milliseconds since the epoch."""
    return round(moment.timestamp() * 1000)
