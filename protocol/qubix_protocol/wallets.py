# SPDX-License-Identifier: Apache-2.0
"""Bodies of the API's wallet and session routes. Identities are text of 60 capital letters, signatures hex text.

A person signs in with a Qubic wallet: ask for a challenge, have the wallet sign its text, send both back.
"""

from typing import Annotated

from msgspec import Meta

from qubix_protocol.api import Body, HexKey, View
from qubix_protocol.messages import Id
from qubix_protocol.units import Network
from qubix_protocol.wallet_text import TEXT_BYTES_MAX, Purpose, Scheme

IdentityText = Annotated[str, Meta(max_length=200)]
"""Longer than an identity, so that a wrong one is told what is wrong with it."""
SignatureHex = Annotated[str, Meta(pattern="^[0-9a-f]{128}$", max_length=128)]
DeviceName = Annotated[str, Meta(min_length=1, max_length=100)]


class ChallengeBody(Body, frozen=True, kw_only=True):
    """`POST /wallet/challenge`. For every purpose but `sign-in`, with the token of the account that it is about.
    `order_key`: the key that is to be added or revoked, for those purposes alone."""

    identity: IdentityText
    purpose: Purpose = Purpose.SIGN_IN
    order_key: HexKey | None = None


class ChallengeView(View, frozen=True, kw_only=True):
    """`text` is to be signed exactly as it stands, before `expires_ms`; it serves once (see `wallet_text`)."""

    text: str
    identity: str
    domain: str
    network: Network
    purpose: Purpose
    expires_ms: int


class SignedBody(Body, frozen=True, kw_only=True):
    """A signed challenge: `POST /wallet/sign-in` and `POST /wallet/bind`, or in a body of `order_keys`. `scheme`: `raw`
    for the browser extension's `signMessage`, `prefixed` for `qubic_sign` of WalletConnect."""

    identity: IdentityText
    text: Annotated[str, Meta(max_length=TEXT_BYTES_MAX)]
    signature: SignatureHex
    scheme: Scheme
    name: DeviceName = "wallet"
    """What this session is listed as, such as a device's name; a binding starts none."""


class SessionView(View, frozen=True, kw_only=True):
    """A token of the account, never the token itself. `expires_ms` None: it does not end by itself."""

    session_id: Id
    name: str
    scopes: tuple[str, ...]
    created_ms: int
    last_used_ms: int | None = None
    expires_ms: int | None = None
    ended_ms: int | None = None
    """When it ended, by its expiry or because it was revoked."""
    identity: str = ""
    """Of the wallet that signed in; "" for a token that was made otherwise."""
    current: bool = False
    """Whether it is the one that asks."""
    kind: str = "session"
    """`session` (a signature gave it) or `token` (somebody made it)."""


class SessionsView(View, frozen=True, kw_only=True):
    """`GET /sessions`: newest first, the latest that ended too."""

    sessions: tuple[SessionView, ...]


class TokenBody(Body, frozen=True, kw_only=True):
    """`POST /tokens`. `scopes`: no more than the asker has, or `read`, which looks and changes nothing. `life_s` None:
    it does not end by itself."""

    name: DeviceName
    scopes: Annotated[tuple[Annotated[str, Meta(max_length=20)], ...], Meta(min_length=1, max_length=5)]
    life_s: Annotated[int, Meta(ge=60, le=366 * 86_400)] | None = None


class TokenView(View, frozen=True, kw_only=True):
    """`token` is told this once, and `repr` keeps it back."""

    token: str
    session: SessionView

    def __repr__(self) -> str:
        return f"TokenView(session={self.session!r})"


class EndedView(View, frozen=True, kw_only=True):
    """`DELETE /sessions`: how many sessions ended."""

    ended: int


class SignedInView(View, frozen=True, kw_only=True):
    """`token` is told this once, and `repr` keeps it back. `created`: the wallet was new, and so is its account."""

    account_id: Id
    token: str
    created: bool
    session: SessionView

    def __repr__(self) -> str:
        return f"SignedInView(account_id={self.account_id!r}, created={self.created}, session={self.session!r})"


class WalletView(View, frozen=True, kw_only=True):
    """A wallet of the account. `proof`: `signature` (signs in, and is paid out to) or `payment` (is paid out to)."""

    identity: str
    proof: str
    may_sign_in: bool
    may_be_paid: bool
    since_ms: int
    approves_keys: bool = False
    """Whether its signature adds and revokes keys of the account's orders: it made the account, was bound before there
    were such keys, or one of them approved it."""
    chain_balance_qu: int | None = None
    """What the network says is on it; None: unknown, and `chain_problem` says why."""
    chain_tick: int | None = None
    chain_problem: str = ""


class PaymentProofBody(Body, frozen=True, kw_only=True):
    """`POST /wallet/payment-proof`: for a wallet that cannot sign texts."""

    identity: IdentityText


class PaymentProofView(View, frozen=True, kw_only=True):
    """Exactly `amount_qu` from `identity` to `pay_to` before `expires_ms` proves the wallet for pay-outs, never for
    signing in. The amount is credited as a deposit, whatever it proves. `uri` is the same as text for a QR code."""

    identity: str
    amount_qu: int
    pay_to: str
    uri: str
    expires_ms: int
    hint: str = ""


class WalletsView(View, frozen=True, kw_only=True):
    """`GET /wallets`: both balances (R2.3). `balance_qu` and `held_qu` are in the market."""

    wallets: tuple[WalletView, ...]
    waiting: tuple[PaymentProofView, ...] = ()
    """Payments that would prove a wallet."""
    balance_qu: int
    held_qu: int
