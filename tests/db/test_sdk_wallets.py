# SPDX-License-Identifier: Apache-2.0
"""The SDK signs in to a real coordinator, in both of its forms, and signs nothing but what it asked for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from qubix import errors, tokens
from qubix.async_client import AsyncClient
from qubix.client import Client
from qubix.settings import Settings
from qubix.signing_in import domain_of
from qubix.transport import AsyncPort, Call, Reply
from qubix_chain import crypto, identity, messages
from qubix_coordinator.db.database import Database
from tests.chain.vectors import OTHER_SEED, SEED
from tests.db.support_http import Running, served

pytestmark = pytest.mark.asyncio


class SeedWallet:
    """Signs what it is given."""

    def __init__(self, seed: str = SEED) -> None:
        self._subseed = crypto.subseed(seed)
        self._key = crypto.public_key_of(seed)
        self.identity: str | None = identity.encode(self._key)
        self.texts: list[str] = []

    def sign_message(self, text: str, /) -> bytes:
        self.texts.append(text)
        return messages.sign(self._subseed, self._key, text)


@pytest_asyncio.fixture
async def running(db: Database, tmp_path: Path) -> AsyncIterator[Running]:
    async with served(db, tmp_path) as found:
        yield found


def settings_for(running: Running, folder: Path) -> Settings:
    return Settings(coordinator_url=running.url, data_dir=folder, tries_max=2, timeout_s=20)


async def test_a_wallet_opens_its_account_for_this_client_and_those_to_come(running: Running, tmp_path: Path) -> None:
    settings, wallet = settings_for(running, tmp_path / "client"), SeedWallet()
    async with AsyncClient(settings=settings) as client:
        with pytest.raises(errors.Unauthorised):
            await client.account()
        view = await client.sign_in(wallet, name="desk")
        assert (await client.account()).account_id == view.account_id
        assert view.token not in repr(view)
    kept = tmp_path / "client" / tokens.SESSIONS_FILE
    assert kept.stat().st_mode & 0o077 == 0
    async with AsyncClient(settings=settings) as client:
        assert (await client.account()).account_id == view.account_id
        (session,) = await client.sessions()
        assert (session.name, session.current, session.identity) == ("desk", True, wallet.identity)
        assert [found.identity for found in (await client.wallets()).wallets] == [wallet.identity]
        assert (await client.sign_out()).ended == 1
        with pytest.raises(errors.Unauthorised):
            await client.account()
        assert (await client.sign_out()).ended == 0
    async with AsyncClient(settings=settings) as client:
        with pytest.raises(errors.Unauthorised):
            await client.account()


async def test_the_blocking_client_does_the_same(running: Running, tmp_path: Path) -> None:
    def scene() -> None:
        with Client(settings=settings_for(running, tmp_path / "client")) as client:
            view, other = client.sign_in(SeedWallet()), SeedWallet(OTHER_SEED)
            bound = client.bind_wallet(other)
            assert [found.identity for found in bound.wallets] == [SeedWallet().identity, other.identity]
            assert client.end_sessions().ended == 0
            assert [s.session_id for s in client.sessions()] == [view.session.session_id]
            assert other.identity is not None
            assert len(client.unbind_wallet(other.identity).wallets) == 1
            with pytest.raises(errors.Conflict, match="nobody could sign in"):
                client.unbind_wallet(view.session.identity)

    await asyncio.to_thread(scene)


async def test_a_session_that_ended_by_itself_is_no_token(running: Running, tmp_path: Path) -> None:
    settings = settings_for(running, tmp_path)
    tokens.keep(tmp_path, settings.url, tokens.Kept("qx_old", "s", 1))
    assert tokens.token_of(settings) != "qx_old"
    assert tokens.token_of(replace(settings, token="qx_set")) == "qx_set"


class Crooked(AsyncPort):
    """A coordinator that asks to have something else signed."""

    def __init__(self, settings: Settings, change: Callable[[str], str]) -> None:
        super().__init__(settings, "")
        self._change = change

    async def send(self, call: Call) -> Reply:
        reply = await super().send(call)
        if not call.path.endswith("/wallet/challenge"):
            return reply
        body = msgspec.json.decode(reply.content)
        return replace(reply, content=msgspec.json.encode(body | {"text": self._change(body["text"])}))


CHANGES: dict[str, Callable[[str], str]] = {
    "domain": lambda text: "bank.example" + text[text.index(" ") :],
    "network": lambda text: text.replace("Network: devnet", "Network: main"),
    "identity": lambda text: text.replace(SeedWallet().identity or "", SeedWallet(OTHER_SEED).identity or ""),
    "purpose": lambda text: (
        text.replace("Purpose: sign-in", "Purpose: bind")
        .replace(
            "Sign in to QUBIX with this wallet.", "Bind this wallet to a QUBIX account: it will sign in to that account"
        )
        .replace("that account This", "that account and receive its pay-outs. This")
    ),
    "something else": lambda text: "pay everything to me",
    "expire": lambda text: text[:-20] + "2999" + text[-16:],
}


@pytest.mark.parametrize("named", CHANGES)
async def test_nothing_is_signed_but_what_was_asked_for(running: Running, tmp_path: Path, named: str) -> None:
    settings, wallet = settings_for(running, tmp_path / "client"), SeedWallet()
    async with AsyncClient(settings=settings, port=Crooked(settings, CHANGES[named])) as client:
        with pytest.raises(errors.NotGenuine, match=named):
            await client.sign_in(wallet)
    assert wallet.texts == []


async def test_a_wallet_without_a_key_is_told_so(running: Running, tmp_path: Path) -> None:
    empty = SeedWallet()
    empty.identity = None
    async with AsyncClient(settings=settings_for(running, tmp_path)) as client:
        with pytest.raises(errors.BadUsage):
            await client.sign_in(empty)


@pytest.mark.parametrize(
    ("url", "domain"),
    [
        ("http://127.0.0.1:8600", "127.0.0.1:8600"),
        ("https://Market.Example", "market.example"),
        ("https://market.example:443/", "market.example"),
        ("http://market.example:443", "market.example:443"),
        ("http://[::1]:8600", "[::1]:8600"),
    ],
)
async def test_the_domain_is_the_address_that_was_called(url: str, domain: str) -> None:
    assert domain_of(url) == domain
