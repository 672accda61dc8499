# SPDX-License-Identifier: Apache-2.0
"""The chain process on a devnet: deposits arrive, are swept, and survive its death at every named step."""

import random
import re
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from qubix_protocol.barriers import Barrier
from tests.support.barriers import Hold
from tests.support.chain_market import ChainMarket, wait_for
from tests.support.market import ProcessFailed

STEPS = (
    Barrier.DEPOSITS_READ,
    Barrier.DEPOSITS_COMMITTED,
    Barrier.SWEEP_SIGNED,
    Barrier.SWEEP_SENT,
    Barrier.SWEEP_ENDED,
)
FAULTS = (
    "empty_tick",
    "drop_transaction",
    "duplicate_transaction",
    "too_many_requests",
    "server_error",
    "no_peers",
    "lagging_archive",
    "archive_repeats",
)
DAILY = 0
DAILY_STEPS = (Barrier.DEPOSITS_COMMITTED,)
SLOW = 50


@pytest.fixture(scope="module")
def shared() -> Iterator[ChainMarket]:
    folder = Path(tempfile.mkdtemp(prefix="qx-"))
    try:
        with ChainMarket(folder) as market:
            yield market
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def swept(market: ChainMarket, tx_ids: set[str]) -> list[dict[str, Any]] | None:
    """These deposits, once each of them is with the hot identity."""
    found = [one for one in market.api("/account/deposits", limit="200")["deposits"] if one["tx_id"] in tx_ids]
    return found if len(found) == len(tx_ids) and all(one["state"] == "swept" for one in found) else None


def ran(market: ChainMarket, tx_id: str) -> bool:
    """What the faucet sends may be dropped by a fault too. Asked of a devnet without faults."""
    answer = market.http.post(f"{market.url}/query/v1/getTransactionByHash", json={"hash": tx_id})
    assert answer.status_code in (200, 404), answer.text
    return answer.status_code == 200 and bool(answer.json()["moneyFlew"])


def check_all(market: ChainMarket) -> None:
    """What is on the chain is what the ledger owes, to the last QU (I8), and each payment counts once."""
    hot = market.parts["chain"].info["identity"]
    held = market.on_chain(hot) + market.on_chain(market.deposit_identity())
    assert market.balance() == held
    assert market.api("/withdrawals/limits")["unswept_qu"] == 0


def test_a_payment_from_the_chain_pays_and_is_swept(shared: ChainMarket) -> None:
    market = shared
    before = market.balance()
    identity = market.deposit_identity()
    tx_id = market.pay(identity, 5_000)
    (found,) = wait_for("the deposit", lambda: swept(market, {tx_id}))
    assert re.fullmatch("[a-z]{60}", found["sweep_tx_id"])
    assert (found["amount_qu"], found["output"], found["source"][:4].isupper()) == (5_000, 0, True)
    assert market.balance() == before + 5_000
    look = wait_for("the last ticks to be read", lambda: _state(market, "ok"))
    assert look["text"] == ""
    assert market.deposit_identity() == identity
    check_all(market)


def test_the_network_goes_away_and_users_see_it(shared: ChainMarket) -> None:
    market = shared
    identity, before = market.deposit_identity(), market.balance()
    market.parts["devnet"].kill()
    look = wait_for("a word of it", lambda: _state(market, "unreachable"))
    assert "cannot be reached" in look["text"]
    assert market.balance() == before
    market.start_devnet()
    tx_id = market.pay(identity, 700)
    wait_for("the deposit", lambda: swept(market, {tx_id}))
    wait_for("good news", lambda: _state(market, "ok"))
    assert market.balance() == before + 700


def _state(market: ChainMarket, state: str) -> dict[str, Any] | None:
    look: dict[str, Any] = market.api("/chain")
    return look if look["state"] == state else None


@pytest.mark.parametrize(
    "step", [pytest.param(one, marks=() if one in DAILY_STEPS else pytest.mark.slow, id=one) for one in STEPS]
)
def test_killed_at_each_step_nothing_is_lost_or_doubled(shared: ChainMarket, step: Barrier) -> None:
    market = shared
    identity, before = market.deposit_identity(), market.balance()
    chain = market.parts["chain"]
    with market.barriers.armed(step, chain.popen.pid) as hold:
        tx_id = market.pay(identity, 1_234)
        hold.wait()
        market.kill_chain()
    market.start_chain()
    wait_for("the deposit", lambda: swept(market, {tx_id}))
    assert market.balance() == before + 1_234
    check_all(market)


@pytest.mark.slow
def test_a_second_process_waits_and_takes_over(shared: ChainMarket) -> None:
    market = shared
    identity, before = market.deposit_identity(), market.balance()
    second = market.start_chain("chain-2")
    wait_for("it to wait", lambda: "chain.waiting" in second.log.read_text())
    first_id = market.pay(identity, 300)
    wait_for("the deposit", lambda: swept(market, {first_id}))
    assert "chain.acting" not in second.log.read_text()
    market.kill_chain()
    second_id = market.pay(identity, 400)
    wait_for("the deposit", lambda: swept(market, {second_id}))
    assert "chain.acting" in second.log.read_text()
    market.start_chain()
    assert second.stop() == 0
    del market.parts["chain-2"]
    assert market.balance() == before + 700


def test_another_master_secret_is_refused(shared: ChainMarket) -> None:
    market = shared
    with pytest.raises(ProcessFailed, match="Put back the master secret"):
        market.start_chain("stranger", QUBIX_MASTER_FILE=str(market.folder / "other.master"))
    del market.parts["stranger"]


def test_a_ledger_of_another_network_is_refused(shared: ChainMarket) -> None:
    with pytest.raises(ProcessFailed, match="belongs to the network devnet"):
        shared.start_chain("stranger", QUBIX_NETWORK="test", QUBIX_BARRIERS="")
    del shared.parts["stranger"]


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=() if n < DAILY else pytest.mark.slow, id=f"seed-{n}") for n in range(SLOW)]
)
def test_killed_among_faults_the_money_adds_up(shared: ChainMarket, seed: int) -> None:
    """Some payments, some faults of the devnet, and deaths at steps drawn from the seed."""
    market, draw = shared, random.Random(seed)
    identity, before = market.deposit_identity(), market.balance()
    for fault in draw.sample(FAULTS, 3):
        market.devnet("faults", kind=fault, rate=draw.choice((0.02, 0.1, 0.25)))
    paid: dict[str, int] = {}
    target = 0
    try:
        for _ in range(draw.randint(1, 3)):
            step, amount = draw.choice(STEPS), draw.randint(100, 100_000)
            with market.barriers.armed(step, market.parts["chain"].popen.pid) as hold:
                made = market.devnet("faucet", identity=identity, amount=amount)
                paid[made["transaction_id"]], target = amount, int(made["target_tick"])
                if draw.random() < 0.5:
                    market.devnet("epoch", jump=draw.randint(0, 500))
                wait_for("a step, or the payment's tick", partial(_here, market, hold, target))
                market.kill_chain()
            market.start_chain()
    finally:
        market.heal()
    wait_for("the payments' ticks", lambda: _read_to(market, target))
    came = {tx_id: amount for tx_id, amount in paid.items() if ran(market, tx_id)}
    wait_for("the deposits", lambda: swept(market, set(came)) is not None)
    assert market.balance() == before + sum(came.values())
    check_all(market)


def _here(market: ChainMarket, hold: Hold, tick: int) -> bool:
    return hold.reached or _read_to(market, tick)


def _read_to(market: ChainMarket, tick: int) -> bool:
    look = market.api("/chain")
    return (look["live_tick"] or 0) - (look["lag_ticks"] or 0) >= tick
