# SPDX-License-Identifier: Apache-2.0
"""Signing in with a Qubic wallet, the account's wallets, and its sessions."""

from uuid import UUID

import msgspec
from quart import Response, request

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.http import cookies, wallets
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.openapi import Signed
from qubix_coordinator.http.problems import WrongMedia
from qubix_coordinator.http.rates import asker_of
from qubix_coordinator.http.routes import JSON, asker, route
from qubix_coordinator.http.wallets import Asked
from qubix_protocol.wallet_text import Purpose
from qubix_protocol.wallets import (
    ChallengeBody,
    ChallengeView,
    EndedView,
    PaymentProofBody,
    PaymentProofView,
    SessionsView,
    SignedBody,
    SignedInView,
    TokenBody,
    TokenView,
    WalletsView,
)


class SessionsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    this_too: bool = False


@route(api, "POST", "/wallet/challenge", body=ChallengeBody, answer=ChallengeView, status=201, group="wallet")
async def ask_challenge(body: ChallengeBody) -> ChallengeView:
    """A text for the wallet to sign, to sign in; or, with a token, about that account and its keys"""
    about = body.purpose is not Purpose.SIGN_IN
    who = await asker("user", request.method, request.headers) if about else None
    return await wallets.challenge(here(), asked(), body, who)


@route(api, "POST", "/wallet/sign-in", body=SignedBody, answer=SignedInView, status=201, group="wallet")
async def sign_in(body: SignedBody) -> SignedInView:
    """A token for the account of the wallet that signed; its first sign-in makes the account"""
    return await wallets.sign_in(here(), asked(), body)


@route(api, "POST", "/key/sign-in", body=Signed, answer=SignedInView, status=201, group="wallet")
async def sign_in_by_key() -> SignedInView:
    """A token for the account of the key that signed the statement: a provider's, by their node's key"""
    if request.mimetype != Signed.media:
        raise WrongMedia("Content-Type", f"{request.mimetype[:100]!r} is not taken here", f"Send {Signed.media}")
    raw = await request.get_data()
    assert isinstance(raw, bytes)
    return await wallets.sign_in_by_key(here(), asked(), raw)


@route(api, "POST", "/wallet/bind", scope="user", body=SignedBody, answer=WalletsView, group="wallet")
async def bind_wallet(who: Principal, body: SignedBody) -> WalletsView:
    """Bind a wallet to your account by its signature: it signs in to it, and pay-outs may go to it"""
    return await wallets.bind(here(), asked(), who, body)


@route(
    api,
    "POST",
    "/wallet/payment-proof",
    scope="user",
    body=PaymentProofBody,
    answer=PaymentProofView,
    status=201,
    group="wallet",
)
async def ask_payment_proof(who: Principal, body: PaymentProofBody) -> PaymentProofView:
    """For a wallet that cannot sign: the exact payment that proves it for pay-outs, never for signing in"""
    return await wallets.payment_proof(here(), who, body)


@route(api, "GET", "/wallets", scope="user", answer=WalletsView, group="wallet")
async def list_wallets(who: Principal) -> WalletsView:
    """Your wallets, what each may do, and both balances: in the market and on the chain"""
    return await wallets.view(here(), who)


@route(api, "DELETE", "/wallets/<identity>", scope="user", answer=WalletsView, group="wallet")
async def unbind_wallet(who: Principal, identity: str) -> WalletsView:
    """Unbind a wallet; its sessions end"""
    return await wallets.unbind(here(), who, identity)


@route(api, "GET", "/sessions", scope=cookies.SCOPES, answer=SessionsView, group="wallet")
async def list_sessions(who: Principal) -> SessionsView:
    """Where your account is signed in, and the tokens that open it"""
    return await wallets.list_sessions(here(), who)


@route(api, "POST", "/tokens", scope=cookies.SCOPES, body=TokenBody, answer=TokenView, status=201, group="wallet")
async def make_token(who: Principal, body: TokenBody) -> Response:
    """A token for a program, told once: with no more scopes than you have, and an end if you like"""
    view = await wallets.make_token(here(), who, body)
    answer = Response(msgspec.json.encode(view), 201, content_type=JSON)
    answer.headers["Cache-Control"] = "no-store"
    return answer


@route(api, "DELETE", "/sessions/<uuid:session_id>", scope=cookies.SCOPES, answer=SessionsView, group="wallet")
async def end_session(who: Principal, session_id: UUID) -> SessionsView:
    """End one session, or revoke one token"""
    return await wallets.end_session(here(), who, session_id)


@route(api, "DELETE", "/sessions", scope=cookies.SCOPES, query=SessionsQuery, answer=EndedView, group="wallet")
async def end_sessions(who: Principal, query: SessionsQuery) -> EndedView:
    """End every session but this one; with `this_too`, this one as well"""
    return await wallets.end_sessions(here(), who, this_too=query.this_too)


def asked() -> Asked:
    """Of the request being handled."""
    domain = wallets.domain_of(request.headers.get("Host"), request.headers.get("Origin"))
    return Asked(asker_of(request.remote_addr), domain)
