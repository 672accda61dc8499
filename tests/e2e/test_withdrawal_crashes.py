# SPDX-License-Identifier: Apache-2.0
"""Withdrawals by the real chain process on a devnet: paid once, whenever it dies and whatever the network does.

What must hold at the end: by the devnet's own books each withdrawal ran at most once, and exactly when it is confirmed;
what is on the chain is what the ledger owes, to the last QU (I8).
"""

import asyncio
import random
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qubix_chain import crypto, identity
from qubix_coordinator.db.database import plain_connection
from qubix_protocol.barriers import Barrier
from tests.support.barriers import Hold
from tests.support.chain_market import ChainMarket, wait_for

STEPS = (
    Barrier.WITHDRAWAL_SIGNED,
    Barrier.WITHDRAWAL_SENT,
    Barrier.WITHDRAWAL_FOUND,
    Barrier.WITHDRAWAL_ENDED,
)
FAULTS = (
    "empty_tick",
    "drop_transaction",
    "duplicate_transaction",
    "too_many_requests",
    "server_error",
    "no_peers",
    "lagging_archive",
    "slow_tick",
)
LIES = ("archive_omits", "archive_misstates")
DEPOSIT_QU = 50_000_000
DAILY, SLOW = 0, 50
DAILY_STEPS = (Barrier.WITHDRAWAL_FOUND,)
END_S = 120.0
STEP_S = 15.0
FINAL = ("confirmed", "cancelled", "refused", "failed")
ENV = {
    "QUBIX_WITHDRAWAL_ADDRESS_DELAY_S": "0",
    "QUBIX_WITHDRAWAL_MIN_QU": "1",
    "QUBIX_WITHDRAWAL_TICKS_AHEAD": "40",
    "QUBIX_WITHDRAWAL_TRIES_MAX": "100",
}


class Paying:
    """A market whose developer has deposited, and has a wallet that is bound and listed."""

    def __init__(self, market: ChainMarket) -> None:
        self.market = market
        self.wallet = crypto.public_key(crypto.private_key(b"withdrawals".ljust(32, b"\0")))
        self.destination = identity.encode(self.wallet)
        tx_id = market.pay(market.deposit_identity(), DEPOSIT_QU)
        wait_for("the deposit to be swept", lambda: self._swept(tx_id))
        asyncio.run(self._bind(uuid.UUID(market.api("/account")["account_id"])))
        self.post("/account/addresses", {"identity": self.destination})

    def _swept(self, tx_id: str) -> bool:
        found = self.market.api("/account/deposits")["deposits"]
        return any(one["tx_id"] == tx_id and one["state"] == "swept" for one in found)

    async def _bind(self, account_id: uuid.UUID) -> None:
        connection = await plain_connection(self.market.database_url)
        try:
            sql = "INSERT INTO wallet (id, account_id, public_key, proof) VALUES ($1, $2, $3, 'signature')"
            await connection.execute(sql, uuid.uuid4(), account_id, self.wallet)
        finally:
            await connection.close(timeout=5)

    def post(self, path: str, body: dict[str, Any], key: str = "") -> Any:
        headers = {"Authorization": f"Bearer {self.market.token}", "Idempotency-Key": key or uuid.uuid4().hex}
        answer = self.market.http.post(f"{self.market.api_url}{path}", json=body, headers=headers)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def ask(self, qu: int) -> str:
        return str(self.post("/withdrawals", {"destination": self.destination, "amount_qu": qu})["withdrawal_id"])

    def see(self, withdrawal_id: str) -> Any:
        return self.market.api(f"/withdrawals/{withdrawal_id}")

    def ended(self, withdrawal_id: str) -> Any:
        found = self.see(withdrawal_id)
        return found if found["state"] in FINAL else None

    def end(self, withdrawal_id: str) -> Any:
        try:
            return wait_for("the end", lambda: self.ended(withdrawal_id), END_S)
        except AssertionError:
            raise AssertionError(f"{self.see(withdrawal_id)}\n{self.market.logs()[-6000:]}") from None

    def ran(self, tx_id: str) -> int:
        """By the devnet, which tells the truth of all its past once its faults are taken away."""
        answer = self.market.http.post(f"{self.market.url}/query/v1/getTransactionByHash", json={"hash": tx_id})
        assert answer.status_code in (200, 404), answer.text
        return int(answer.status_code == 200 and answer.json()["moneyFlew"])

    def check(self) -> None:
        self.market.heal()
        every = self.market.api("/withdrawals", limit="200")["withdrawals"]
        confirmed_qu = 0
        for one in every:
            ran = sum(self.ran(tx["tx_id"]) for tx in one["transactions"])
            assert ran == (one["state"] == "confirmed"), (one, self.market.logs()[-4000:])
            confirmed_qu += one["amount_qu"] if one["state"] == "confirmed" else 0
            assert sum(tx.get("outcome") in (None, "paid") for tx in one["transactions"]) <= 1
        assert self.market.on_chain(self.destination) == confirmed_qu
        open_qu = sum(one["amount_qu"] for one in every if one["state"] not in FINAL)
        hot = self.market.parts["chain"].info["identity"]
        held = self.market.on_chain(hot) + self.market.on_chain(self.market.deposit_identity())
        assert held == self.market.balance() + open_qu
        assert self.market.api("/audit")["clean"]


@pytest.fixture(scope="module")
def paying() -> Iterator[Paying]:
    folder = Path(tempfile.mkdtemp(prefix="qx-"))
    try:
        with ChainMarket(folder, **ENV) as market:
            yield Paying(market)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_withdrawal_is_paid_by_the_chain(paying: Paying) -> None:
    asked = paying.ask(4_321)
    found = paying.end(asked)
    assert (found["state"], paying.ran(found["tx_id"])) == ("confirmed", 1)
    paying.check()


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=() if step in DAILY_STEPS else pytest.mark.slow) for step in STEPS]
)
def test_killed_at_each_step_it_is_paid_once(paying: Paying, step: Barrier) -> None:
    market = paying.market
    with market.barriers.armed(step, market.parts["chain"].popen.pid) as hold:
        asked = paying.ask(1_234)
        hold.wait()
        market.kill_chain()
    market.start_chain()
    found = paying.end(asked)
    assert found["state"] == "confirmed"
    paying.check()


@pytest.mark.slow
def test_the_network_goes_away_and_the_user_sees_why_it_waits(paying: Paying) -> None:
    market = paying.market
    market.parts["devnet"].kill()
    asked = paying.ask(55)
    waits = wait_for("the reason", lambda: _reason(paying, asked, "chain_down"))
    assert (waits["state"], "cannot be reached" in waits["text"]) == ("waiting", True)
    assert market.balance() > 0
    market.start_devnet()
    assert paying.end(asked)["state"] == "confirmed"
    paying.check()


def _reason(paying: Paying, withdrawal_id: str, reason: str) -> Any:
    found = paying.see(withdrawal_id)
    return found if found["reason"] == reason else None


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=() if n < DAILY else pytest.mark.slow, id=f"seed-{n}") for n in range(SLOW)]
)
def test_killed_among_faults_nothing_is_paid_twice(paying: Paying, seed: int) -> None:
    """Some withdrawals, some faults of the devnet, and deaths at steps drawn from the seed."""
    market, draw = paying.market, random.Random(seed)
    for fault in draw.sample(FAULTS, 3):
        market.devnet("faults", kind=fault, rate=draw.choice((0.02, 0.1, 0.25)))
    if draw.random() < 0.4:
        market.devnet("faults", kind=draw.choice(LIES), rate=0.3)
    asked: list[str] = []
    try:
        for _ in range(draw.randint(1, 3)):
            with market.barriers.armed(draw.choice(STEPS), market.parts["chain"].popen.pid) as hold:
                asked += [paying.ask(draw.randint(1, 10_000)) for _ in range(draw.randint(1, 2))]
                if draw.random() < 0.3:
                    market.devnet("epoch", jump=draw.randint(0, 500))
                _until_step_or_end(paying, hold, asked)
                market.kill_chain()
            market.start_chain()
    finally:
        market.heal()
    for one in asked:
        found = paying.end(one)
        assert found["state"] == "confirmed", found
    paying.check()


def _until_step_or_end(paying: Paying, hold: Hold, asked: list[str]) -> None:
    """Or long enough: a lie may keep everything waiting until it is taken back."""
    deadline = time.monotonic() + STEP_S
    while not hold.reached and not _all_ended(paying, asked) and time.monotonic() < deadline:
        time.sleep(0.05)


def _all_ended(paying: Paying, asked: list[str]) -> bool:
    return all(paying.ended(one) for one in asked)
