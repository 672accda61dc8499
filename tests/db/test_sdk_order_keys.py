# SPDX-License-Identifier: Apache-2.0
"""Order keys by the SDK and `qubix wallet keys`: two machines, one account (M6)."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from click.testing import CliRunner

from qubix import errors
from qubix.async_client import AsyncClient
from qubix.cli import main
from qubix.client import Client
from qubix.settings import Settings
from qubix.tokens import token_of
from qubix.transport import AsyncPort, Call, Reply
from qubix_coordinator.db.database import Database
from qubix_protocol.keys import SigningKey
from qubix_protocol.states import OrderKeyKind, OrderKeyWay
from tests.chain.vectors import OTHER_SEED, SEED
from tests.db.support_http import Person, Running, make_person, served
from tests.db.test_sdk_wallets import SeedWallet, settings_for

pytestmark = pytest.mark.asyncio
PASSPHRASE = "correct horse battery"


@pytest_asyncio.fixture
async def running(db: Database, tmp_path: Path) -> AsyncIterator[Running]:
    async with served(db, tmp_path) as found:
        yield found


def machine(running: Running, folder: Path, person: Person) -> Settings:
    return replace(settings_for(running, folder), token=person.token)


async def test_a_second_machine_asks_and_the_first_approves_reads_and_revokes_it(
    running: Running, tmp_path: Path
) -> None:
    person = await make_person(running.db)
    first = AsyncClient(settings=machine(running, tmp_path / "first", person))
    second = AsyncClient(settings=machine(running, tmp_path / "second", person))
    async with first, second:
        assert (await first.order_keys.list()).signed is False
        (own,) = (await first.order_keys.add(name="the desk")).keys
        assert (own.public_key, own.name, own.added_by) == (first.wallet.public_key, "the desk", OrderKeyWay.SESSION)
        assert [one.public_key for one in (await first.order_keys.add()).keys] == [own.public_key]
        with pytest.raises(errors.Forbidden) as refused:
            await second.order_keys.add()
        assert (refused.value.code, "qubix wallet keys" in refused.value.remedy) == ("approval_needed", True)
        request = await second.order_keys.request(name="the laptop")
        asked = await first.order_keys.read(request)
        assert (asked.public_key, asked.name, asked.kind) == (
            second.wallet.public_key,
            "the laptop",
            OrderKeyKind.SDK,
        )
        with pytest.raises(errors.Forbidden):
            await second.order_keys.add(request)
        told = await first.order_keys.add(request)
        assert [one.added_by_key for one in told.keys] == [None, own.public_key]
        await second.order_keys.revoke(own.public_key)
        with pytest.raises(errors.Forbidden, match="last key"):
            await second.order_keys.revoke(second.wallet.public_key)
        with pytest.raises(errors.Forbidden):
            await first.order_keys.revoke(second.wallet.public_key)
        assert [one.revoked_ms is None for one in (await first.order_keys.list()).keys] == [True, False]


async def test_what_is_no_request_of_this_account_here_is_never_approved(running: Running, tmp_path: Path) -> None:
    one, other = await make_person(running.db), await make_person(running.db)
    mine = AsyncClient(settings=machine(running, tmp_path / "mine", one))
    theirs = AsyncClient(settings=machine(running, tmp_path / "theirs", other))
    async with mine, theirs:
        await mine.order_keys.add()
        request = await theirs.order_keys.request()
        with pytest.raises(errors.BadUsage, match="asks for the account"):
            await mine.order_keys.add(request)
        forged = request[:-2] + f"{int(request[-2:], 16) ^ 1:02x}"
        for text, kind in (("xyz", errors.BadUsage), (forged, errors.NotGenuine), ("c1", errors.NotGenuine)):
            with pytest.raises(kind):
                await mine.order_keys.add(text)
        assert len((await mine.order_keys.list()).keys) == 1


async def test_the_wallet_of_an_account_adds_and_revokes_also_the_last_key(running: Running, tmp_path: Path) -> None:
    wallet = SeedWallet()

    def scene() -> None:
        with Client(settings=settings_for(running, tmp_path / "first")) as client:
            client.sign_in(wallet)
            client.order_keys.add()
            own = client.wallet.public_key
            with Client(settings=settings_for(running, tmp_path / "second")) as second:
                second.sign_in(wallet)
                told = second.order_keys.add(wallet=wallet)
                assert [one.added_by_identity for one in told.keys] == ["", wallet.identity]
                assert f"Order key: {second.wallet.public_key}" in wallet.texts[-1]
                second.order_keys.revoke(own, wallet=wallet)
                last = second.order_keys.revoke(second.wallet.public_key, wallet=wallet)
            assert last.signed
            assert all(one.revoked_by is OrderKeyWay.WALLET for one in last.keys)

    await asyncio.to_thread(scene)


async def test_a_wallet_that_is_bound_later_is_trusted_by_a_key(running: Running, tmp_path: Path) -> None:
    person, wallet = await make_person(running.db), SeedWallet(OTHER_SEED)
    async with AsyncClient(settings=machine(running, tmp_path / "mine", person)) as client:
        await client.order_keys.add()
        await client.bind_wallet(wallet)
        own = client.wallet.public_key
        with pytest.raises(errors.Forbidden, match="may not"):
            await client.order_keys.revoke(own, wallet=wallet)
        assert wallet.identity is not None
        found = await client.order_keys.trust_wallet(wallet.identity)
        assert [one.approves_keys for one in found.wallets] == [True]
        await client.order_keys.revoke(own, wallet=wallet)


class AsksForAnotherKey(AsyncPort):
    """A coordinator that has a wallet sign for a key of its own."""

    key = SigningKey.generate().public.hex()

    async def send(self, call: Call) -> Reply:
        reply = await super().send(call)
        if not call.path.endswith("/wallet/challenge"):
            return reply
        body: dict[str, Any] = msgspec.json.decode(reply.content)
        before, _, rest = body["text"].partition("Order key: ")
        return replace(reply, content=msgspec.json.encode(body | {"text": f"{before}Order key: {self.key}{rest[64:]}"}))


async def test_a_wallet_signs_for_the_key_that_was_meant_and_for_no_other(running: Running, tmp_path: Path) -> None:
    wallet, settings = SeedWallet(SEED), settings_for(running, tmp_path / "mine")
    async with AsyncClient(settings=settings) as client:
        await client.sign_in(wallet)
    signed = len(wallet.texts)
    async with AsyncClient(settings=settings, port=AsksForAnotherKey(settings, token_of(settings))) as client:
        with pytest.raises(errors.NotGenuine, match="order_key"):
            await client.order_keys.add(wallet=wallet)
    assert len(wallet.texts) == signed


async def test_the_command(running: Running, tmp_path: Path) -> None:
    person = await make_person(running.db)

    def keys_of(name: str) -> Callable[..., Any]:
        env = {
            "QUBIX_DATA_DIR": str(tmp_path / name),
            "QUBIX_COORDINATOR_URL": running.url,
            "QUBIX_TOKEN": person.token,
            "QUBIX_WALLET_PASSPHRASE": PASSPHRASE,
        }
        return lambda *words, **more: CliRunner().invoke(main, ["wallet", *words], env=env, **more)

    def scene() -> None:
        desk, laptop = keys_of("desk"), keys_of("laptop")
        assert "need no signature yet" in desk("keys", "list").output
        first = json.loads(desk("keys", "add", "--name", "the desk", "--json").stdout)["keys"][0]
        refused = laptop("keys", "add")
        assert (refused.exit_code, "qubix wallet keys" in refused.stderr) == (2, True)
        assert "OTHER keys" in laptop("show").output
        request = laptop("keys", "request", "--name", "the laptop").stdout.strip()
        no = desk("keys", "add", request, input="n\n")
        assert (no.exit_code, "'the laptop'" in no.stderr) == (1, True)
        told = json.loads(desk("keys", "add", request, "--yes", "--json").stdout)
        assert [one["name"] for one in told["keys"]] == ["the desk", "the laptop"]
        assert "known to the market" in laptop("show").output
        shown = laptop("keys", "list").output
        assert first["public_key"][:16] in shown.replace("\n", "")
        assert "No wallet could add another key" in shown
        assert laptop("keys", "revoke", first["public_key"]).exit_code == 0
        assert "REVOKED" in desk("show").output
        assert desk("keys", "revoke", "xyz").exit_code == 2
        assert desk("create").exit_code == 0
        assert desk("login", "--bind").exit_code == 0
        identity = json.loads(desk("show", "--json").stdout)["identity"]
        assert laptop("keys", "trust", identity).exit_code == 0
        assert "No wallet could add another key" not in laptop("keys", "list").output
        last = json.loads(laptop("keys", "list", "--json").stdout)["keys"][0]["public_key"]
        gone = desk("keys", "revoke", last, "--by-wallet", "--json")
        assert [one["revoked_by"] for one in json.loads(gone.stdout)["keys"]] == ["wallet", "key"]

    await asyncio.to_thread(scene)
