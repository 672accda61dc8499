# SPDX-License-Identifier: Apache-2.0
"""Signing in with a Qubic wallet. What the coordinator asks to have signed is read before it is signed."""

import platform
import secrets
from typing import Final, Protocol
from urllib.parse import urlsplit

from qubix import tokens
from qubix.errors import BadUsage, NotGenuine
from qubix.session import Session
from qubix_protocol.api import AccountView
from qubix_protocol.envelope import seal
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import KeySignIn
from qubix_protocol.wallet_text import Purpose, Scheme, parse
from qubix_protocol.wallets import ChallengeBody, ChallengeView, SignedBody, SignedInView, WalletsView

LIFE_MS_MAX: Final = 16 * 60 * 1000
_STATEMENT_MS: Final = 60_000
_PORTS: Final = {"http": 80, "https": 443}
_REMEDY: Final = "Do not sign it. Check QUBIX_COORDINATOR_URL; if it is right, tell the market's operator."


class SignsText(Protocol):
    """A wallet that signs texts: `qubix.Wallet` does, once it is unlocked."""

    @property
    def identity(self) -> str | None:
        """60 capital letters; None when it holds no key."""
        ...

    def sign_message(self, text: str, /) -> bytes:
        """64 bytes, over the bare text (K12 of its UTF-8)."""
        ...


async def sign_in(session: Session, wallet: SignsText, name: str) -> SignedInView:
    """Signs in and keeps the token for this address, in the data folder and for this client."""
    body = await signed(session, wallet, Purpose.SIGN_IN, "", name or device_name())
    view = await session.post("/wallet/sign-in", body, SignedInView, repeatable=False)
    await _keep(session, view)
    return view


async def by_key(session: Session, key: SigningKey, name: str) -> SignedInView:
    """A session of the account that the key speaks for, kept like one of `sign_in`."""
    network = await session.network()
    statement = seal(
        KeySignIn(name=name or device_name(), clock_ms=session.clock_ms()),
        key,
        network=network.network,
        audience=bytes.fromhex(network.coordinator_key),
        incarnation=0,
        counter=secrets.randbits(52),
        expires_ms=session.clock_ms() + _STATEMENT_MS,
    )
    view = await session.post_signed("/key/sign-in", statement, SignedInView)
    await _keep(session, view)
    return view


async def _keep(session: Session, view: SignedInView) -> None:
    settings = session.settings
    if view.session.expires_ms is None:
        raise NotGenuine("the coordinator gave a session without an end", remedy=_REMEDY)
    kept = tokens.Kept(view.token, view.session.session_id, view.session.expires_ms)
    await session.port.aside(lambda: tokens.keep(settings.data_dir, settings.url, kept))
    session.port.use_token(view.token)


async def bind(session: Session, wallet: SignsText) -> WalletsView:
    account = await session.get("/account", AccountView)
    body = await signed(session, wallet, Purpose.BIND, account.account_id, device_name())
    return await session.post("/wallet/bind", body, WalletsView, repeatable=False)


async def signed(
    session: Session, wallet: SignsText, purpose: Purpose, account_id: str, name: str, order_key: str = ""
) -> SignedBody:
    """A challenge of this coordinator for just that, signed by the wallet. Raises `NotGenuine`, `BadUsage`."""
    identity = wallet.identity
    if identity is None:
        raise BadUsage("wallet", "the wallet holds no Qubic key", "Make one first, or bring a seed of yours.")
    await session.network()
    asked = ChallengeBody(identity=identity, purpose=purpose, order_key=order_key or None)
    challenge = await session.post("/wallet/challenge", asked, ChallengeView)
    await _check(session, challenge.text, identity, purpose, account_id, order_key)
    signature = await session.port.aside(lambda: wallet.sign_message(challenge.text))
    return SignedBody(identity=identity, text=challenge.text, signature=signature.hex(), scheme=Scheme.RAW, name=name)


async def _check(session: Session, text: str, identity: str, purpose: Purpose, account_id: str, order_key: str) -> None:
    """Raises NotGenuine: a coordinator gets a signature for nothing but what was asked of it, at its own address."""
    try:
        said = parse(text)
    except ValueError as problem:
        raise NotGenuine(f"the coordinator asks to have something else signed: {problem}", remedy=_REMEDY) from None
    wanted = {
        "domain": domain_of(session.settings.url),
        "network": (await session.network()).network,
        "identity": identity,
        "purpose": purpose,
        "account": account_id,
        "order_key": order_key,
    }
    for name, value in wanted.items():
        if getattr(said, name) != value:
            raise NotGenuine(
                f"the text to sign names the {name} {getattr(said, name)!r}, and it should be {str(value)!r}",
                remedy=_REMEDY,
            )
    left_ms = said.expires.timestamp() * 1000 - session.clock_ms()
    if not 0 < left_ms <= LIFE_MS_MAX:
        raise NotGenuine("the text to sign does not expire within minutes", remedy=_REMEDY)


def domain_of(url: str) -> str:
    """As it stands in a request's Host."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    named = f"[{host}]" if ":" in host else host
    return named if parts.port in (None, _PORTS.get(parts.scheme)) else f"{named}:{parts.port}"


def device_name() -> str:
    return (platform.node() or "this machine")[:100]
