# SPDX-License-Identifier: Apache-2.0
"""`qubix wallet` as people and scripts use it: with a served coordinator, and a devnet process that goes on when
something was sent."""

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from qubix.cli import main
from qubix.onchain import TICKS_AHEAD
from qubix.wallet import Wallet
from qubix_chain import crypto, identity
from qubix_chain.rpc import Client
from qubix_chain.rpc.errors import ChainError
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.db.database import Database
from qubix_coordinator.deposits import scan
from tests.db.deposits_world import World
from tests.db.support_http import served
from tests.support.devnet import start_devnet
from tests.support.withdrawal_world import RICH, Bank

pytestmark = pytest.mark.asyncio
PASSPHRASE = "correct horse battery"
LEAST_QU = 100
DEADLINE_S = 120.0
LOOK_EACH_S = 0.1
"""The commands look each second."""
OTHER_KEY = crypto.public_key_of("o" * 55)


@dataclass
class Told:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


@dataclass
class Desk:
    """A person's machine: a data folder, and the command."""

    folder: Path
    env: dict[str, str]
    qubic_url: str
    network: Client

    async def wallet(self, *words: str, typed: str = "", **env: str) -> Told:
        """In a thread of its own, so that the market goes on meanwhile."""

        def run() -> Result:
            return CliRunner().invoke(main, ["wallet", *words], input=typed, env={**self.env, **env})

        async with asyncio.timeout(DEADLINE_S):
            ended = await asyncio.to_thread(run)
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return Told(ended.exit_code, ended.stdout, ended.stderr)

    async def devnet(self, path: str, **body: Any) -> Any:
        """Without a body it is only asked."""

        def call() -> Any:
            headers, data = {"Content-Type": "application/json"}, json.dumps(body).encode() if body else None
            asked = urllib.request.Request(f"{self.qubic_url}/devnet/v1{path}", data, headers)
            with urllib.request.urlopen(asked, timeout=DEADLINE_S) as answer:
                return json.load(answer)

        return await asyncio.to_thread(call)

    async def tick_on(self) -> None:
        """A payment is signed for a tick that is near. The network stands meanwhile, however long that takes here, and
        goes on once it has the payment, or has lost it."""
        lost = 0
        while True:
            status = await self.devnet("/status")
            now_lost = sum(status["dropped"].values())
            if status["pending"] or now_lost > lost:
                await self.devnet("/clock/step", ticks=2 * TICKS_AHEAD)
            lost = now_lost
            await asyncio.sleep(LOOK_EACH_S)

    async def fund(self, key: str, amount_qu: int) -> None:
        """From the faucet, until the network says it is there."""
        await self.devnet("/faucet", identity=key, amount=amount_qu)
        await self.until_on_chain(key, amount_qu)

    async def until_on_chain(self, key: str, amount_qu: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while (await self.network.balance(identity.decode(key))).amount_qu != amount_qu:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_EACH_S)


@pytest_asyncio.fixture
async def desk(db: Database, tmp_path: Path) -> AsyncIterator[Desk]:
    devnet = start_devnet(tmp_path / "devnet")
    try:
        url = str((await asyncio.to_thread(devnet.wait_ready)).info["url"])
        network = Client(url, weekly=False)
        world = await World.make(db, network, deposit_min_qu=LEAST_QU)  # type: ignore[arg-type]
        reading = asyncio.create_task(_read_deposits(world))
        async with served(db, tmp_path / "market", qubic_url=(url,), deposit_min_qu=LEAST_QU) as running:
            env = {
                "QUBIX_DATA_DIR": str(tmp_path / "mine"),
                "QUBIX_COORDINATOR_URL": running.url,
                "QUBIX_QUBIC_URL": url,
                "QUBIX_WALLET_PASSPHRASE": PASSPHRASE,
            }
            made = Desk(tmp_path / "mine", env, url, network)
            ticking = asyncio.create_task(made.tick_on())
            yield made
        for task in (reading, ticking):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await network.close()
    finally:
        devnet.stop()


async def _read_deposits(world: World) -> None:
    """What the chain process does for deposits."""
    while True:
        with contextlib.suppress(ChainError):
            await scan.step(world.desk)
        await asyncio.sleep(LOOK_EACH_S)


async def test_from_a_new_wallet_to_qu_in_the_market(desk: Desk) -> None:
    made = (await desk.wallet("create", "--json")).json
    signed_in = (await desk.wallet("login", "--name", "tests", "--json")).json
    assert (signed_in["identity"], signed_in["created"]) == (made["identity"], True)
    assert (await desk.wallet("balance", "--json")).json == {
        "available_qu": 0,
        "held_qu": 0,
        "identity": made["identity"],
        "chain_qu": 0,
        "chain_problem": "",
    }
    poor = await desk.wallet("deposit", "5000", "--pay", "--yes")
    assert (poor.code, "holds 0 QU, less than 5,000" in poor.err) == (2, True)
    given = (await desk.wallet("faucet", "8000", "--json")).json
    assert (given["identity"], given["amount_qu"], len(given["tx_id"])) == (made["identity"], 8_000, 60)
    await desk.until_on_chain(made["identity"], 8_000)
    assert (await desk.wallet("faucet", "0")).code == 2
    away = await desk.wallet("faucet", "5", QUBIX_QUBIC_URL="http://127.0.0.1:1")
    assert (away.code, "does not answer" in away.err, "QUBIX_QUBIC_URL" in away.err) == (1, True, True)

    by_hand = (await desk.wallet("deposit", "5000", "--json")).json
    assert by_hand["uri"] == f"qubic:{by_hand['identity']}?amount=5000"
    shown = await desk.wallet("deposit", "5000")
    assert by_hand["identity"] in shown.out
    assert "5,000 QU" in shown.out
    assert "play money" in shown.out
    assert "█" in shown.out, "the QR code"

    refused = await desk.wallet("deposit", "5000", "--pay", typed="n\n")
    assert (refused.code, "transaction" in refused.err) == (1, False)
    paid = await desk.wallet("deposit", "5000", "--pay", "--yes", "--json")
    assert (paid.json["amount_qu"], paid.json["state"]) == (5_000, "credited")
    assert paid.json["source"] == made["identity"]
    assert paid.json["tx_id"] in paid.err, "told before it was sent"
    after = (await desk.wallet("balance", "--json")).json
    assert (after["available_qu"], after["chain_qu"]) == (5_000, 3_000)

    assert [one["tx_id"] for one in (await desk.wallet("deposits", "--json")).json["deposits"]] == [paid.json["tx_id"]]
    statement = await desk.wallet("statement")
    assert paid.json["tx_id"] in statement.out
    assert "+5,000" in statement.out

    assert (await desk.wallet("logout", "--json")).json == {"ended": 1}
    assert (await desk.wallet("deposits")).code == 2


async def test_a_payment_that_the_network_drops_is_known_to_have_failed(desk: Desk) -> None:
    made = (await desk.wallet("create", "--json")).json
    await desk.wallet("login")
    await desk.fund(made["identity"], 8_000)
    await desk.devnet("/faults", kind="drop_transaction", count=1)
    failed = await desk.wallet("deposit", "5000", "--pay", "--yes")
    assert failed.code == 1
    assert "the network did not run it: no QU moved" in failed.err
    assert (await desk.wallet("balance", "--json")).json["chain_qu"] == 8_000
    assert (await desk.wallet("deposit", "5000", "--pay", "--yes")).code == 0


async def test_bad_input_says_what_is_wrong_and_exits_with_2(desk: Desk) -> None:
    for words, told in [
        (("login",), "qubix wallet create"),
        (("withdraw", "5"), "qubix wallet create"),
        (("withdraw", "5", "--to", "X" * 60), "QUBIX_TOKEN"),
        (("deposit", "0"), "0 is not in the range"),
        (("deposit", "ten"), "not a valid integer"),
        (("deposit", str(10**15 + 1)), "not in the range"),
        (("payout", "--to", "X" * 60), "--keep 10000"),
        (("payout", "--stop", "--keep", "5"), "Leave --stop out"),
    ]:
        refused = await desk.wallet(*words)
        assert (refused.code, told in refused.err) == (2, True), refused
    await desk.wallet("create")
    await desk.wallet("login")
    for words, told in [
        (("deposit", str(LEAST_QU - 1)), "at least 100 QU"),
        (("deposit", "--pay", "--yes"), "how much"),
        (("address", "add", "A" * 60), "checksum"),
    ]:
        refused = await desk.wallet(*words)
        assert (refused.code, told in refused.err) == (2, True), refused
    gone = {"QUBIX_QUBIC_URL": "http://127.0.0.1:9"}
    found = (await desk.wallet("balance", "--json", **gone)).json
    assert (found["available_qu"], found["chain_qu"]) == (0, None)
    assert "does not answer at http://127.0.0.1:9" in found["chain_problem"]
    refused = await desk.wallet("deposit", "5000", "--pay", "--yes", **gone)
    assert (refused.code, "QUBIX_QUBIC_URL" in refused.err) == (1, True)
    locked = await desk.wallet("login", QUBIX_WALLET_PASSPHRASE="something else")
    assert (locked.code, "does not open" in locked.err) == (2, True)


async def test_withdrawals_from_the_command_line(desk: Desk, db: Database) -> None:
    """Asking, listing, taking back; what sends them is tried in tests of its own."""
    person = await Bank(db).person(listed=False)
    token = await db.run(lambda tx: accounts.create_token(tx, person.account_id, [Scope.USER]))
    desk.env["QUBIX_TOKEN"] = token
    own = Wallet.import_seed(desk.folder, "s" * 55, passphrase=PASSPHRASE).identity
    assert own is not None

    limits = (await desk.wallet("withdraw", "--json")).json
    assert limits["withdrawable_qu"] == RICH
    unlisted = await desk.wallet("withdraw", "5000")
    assert unlisted.code != 0
    assert "qubix wallet address add" in unlisted.err, "in words of the command line"
    assert "qubix wallet login --bind" in (await desk.wallet("address", "add")).err
    bound = (await desk.wallet("login", "--bind", "--json")).json
    assert own in {one["identity"] for one in bound["wallets"]}
    proof = (await desk.wallet("prove", identity.encode(OTHER_KEY), "--json")).json
    assert proof["uri"] == f"qubic:{proof['pay_to']}?amount={proof['amount_qu']}"
    assert (await desk.wallet("address", "add", "--label", "mine", "--json")).json[0]["identity"] == own
    other = identity.encode(OTHER_KEY)
    assert (await desk.wallet("address", "add", person.destination)).code == 0
    assert {one["identity"] for one in (await desk.wallet("address", "list", "--json")).json} == {
        own,
        person.destination,
    }
    assert (await desk.wallet("withdraw", "5000", "--to", other)).code != 0

    asked = (await desk.wallet("withdraw", "5000", "--key", "once", "--json")).json
    again = (await desk.wallet("withdraw", "5000", "--key", "once", "--json")).json
    assert (asked["withdrawal_id"], asked["destination"], asked["state"]) == (again["withdrawal_id"], own, "waiting")
    late = await desk.wallet("withdraw", "5000", "--key", "once", "--watch", "--timeout", "0")
    assert (late.code, "goes on by itself" in late.err) == (1, True)
    listed = (await desk.wallet("withdrawals", "--json")).json["withdrawals"]
    assert [one["withdrawal_id"] for one in listed] == [asked["withdrawal_id"]]
    assert "5,000" in (await desk.wallet("withdrawals")).out
    cancelled = (await desk.wallet("cancel", asked["withdrawal_id"], "--json")).json
    assert cancelled["state"] == "cancelled"
    assert (await desk.wallet("balance", "--json")).json["available_qu"] == RICH

    order = (await desk.wallet("payout", "--keep", "1000", "--least", "5000", "--json")).json
    assert (order["destination"], order["keep_qu"], order["least_qu"]) == (own, 1_000, 5_000)
    assert "1,000 QU" in (await desk.wallet("payout")).out
    assert (await desk.wallet("payout", "--stop", "--json")).json["destination"] is None
    assert (await desk.wallet("address", "remove", own, "--json")).json[0]["identity"] == person.destination
