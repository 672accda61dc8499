# SPDX-License-Identifier: Apache-2.0
"""One client, every network: the same reads against a devnet always, and against the network that QUBIX_TEST_QUBIC_URL
names, where one does. What spends QU runs on the devnet alone."""

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from qubix_chain.contracts import QUTIL, SEND_TO_MANY_INPUT_TYPE, contract_id, send_to_many
from qubix_chain.rpc import Client
from qubix_chain.rpc.errors import NotYetProcessed, RefusedByNetwork, SkippedTick, Unreachable, Untrusted
from qubix_chain.rpc.http import Limits
from qubix_chain.rpc.types import Archived
from qubix_chain.rpc.verified import verify
from tests.support.devnet import DevnetClient, Wallet, devnet_client

pytestmark = pytest.mark.asyncio
URL = os.environ.get("QUBIX_TEST_QUBIC_URL", "")
ANN, BOB = Wallet("ann"), Wallet("bob")
LOOK_BACK = 200
"""So many ticks are looked through for one with transactions."""


@dataclass
class Net:
    client: Client
    owner: DevnetClient | None


@contextlib.asynccontextmanager
async def a_devnet(folder: Path) -> AsyncIterator[Net]:
    """On which Ann has paid Bob."""
    async with devnet_client(folder, archive_lag=2) as (owner, made):
        client = Client(
            "http://127.0.0.1",
            transport=httpx.ASGITransport(app=made.app),
            limits=Limits(try_s=10, deadline_s=20, tries_max=3),
            weekly=False,
        )
        await owner.fund(ANN, 100_000)
        await owner.broadcast(ANN.sign(BOB.key, 5_000, await owner.tick() + 5))
        await owner.step(10)
        yield Net(client, owner)
        await client.close()


@pytest_asyncio.fixture(params=["devnet", *(["named"] if URL else [])])
async def net(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Net]:
    if request.param == "devnet":
        async with a_devnet(tmp_path) as made:
            yield made
        return
    client = Client(URL)
    yield Net(client, None)
    await client.close()


@pytest_asyncio.fixture
async def devnet(tmp_path: Path) -> AsyncIterator[Net]:
    async with a_devnet(tmp_path) as made:
        yield made


async def some_transaction(client: Client) -> Archived:
    """A plain payment in one of the last ticks that the archive knows."""
    last = (await client.last_processed_tick()).tick
    for tick in range(last, max(0, last - LOOK_BACK), -1):
        try:
            found = [tx for tx in await client.transactions_for_tick(tick) if tx.input_type == 0 and tx.amount_qu]
        except SkippedTick:
            continue
        if found:
            return found[0]
    raise AssertionError(f"nobody paid anybody in {LOOK_BACK} ticks: ask another time")


async def test_the_archive_follows_the_network(net: Net) -> None:
    info, processed = await net.client.tick_info(), await net.client.last_processed_tick()
    assert 0 < processed.tick <= info.tick + 100
    assert info.initial_tick <= info.tick
    intervals = await net.client.processed_intervals()
    assert intervals[-1].last_tick >= processed.tick
    assert intervals[-1].epoch >= processed.epoch


async def test_a_tick_and_its_transactions_are_one_story_and_genuine(net: Net) -> None:
    chosen = await some_transaction(net.client)
    data, txs = await net.client.tick_data(chosen.tick), await net.client.transactions_for_tick(chosen.tick)
    assert data is not None
    assert {tx.tx_id for tx in txs} == set(data.tx_ids)
    for tx in txs[:50]:
        assert verify(tx) is tx


async def test_one_transaction_is_the_same_whoever_is_asked_for_it(net: Net) -> None:
    chosen = await some_transaction(net.client)
    assert await net.client.transaction_by_hash(chosen.tx_id) == chosen
    by_range = await net.client.transactions_to(chosen.destination, chosen.tick - 10, chosen.tick)
    by_tick = await net.client.transactions_to(chosen.destination, chosen.tick, chosen.tick)
    assert chosen in by_range
    assert chosen in by_tick
    assert [tx.tick for tx in by_range] == sorted(tx.tick for tx in by_range)


async def test_event_logs_tell_what_a_payment_moved(net: Net) -> None:
    chosen = await some_transaction(net.client)
    logs = await net.client.qu_transfers(chosen.tick, chosen.destination)
    if logs is None:
        assert (await net.client.last_processed_tick()).log_tick is None, "a source without logs that says it has some"
        return
    moved = [log.amount_qu for log in logs if log.tx_id == chosen.tx_id]
    assert moved == ([chosen.amount_qu] if chosen.money_flew else [])


async def test_balances_are_what_came_less_what_went(net: Net) -> None:
    chosen = await some_transaction(net.client)
    found = await net.client.balance(chosen.destination)
    assert found.amount_qu == found.incoming_qu - found.outgoing_qu
    assert found.public_key == chosen.destination


async def test_what_is_not_there_is_said_by_type(net: Net) -> None:
    processed = await net.client.last_processed_tick()
    with pytest.raises(NotYetProcessed) as later:
        await net.client.tick_data(processed.tick + 100_000)
    assert later.value.last_processed >= processed.tick
    never = ANN.sign(BOB.key, 1, 1).id
    assert await net.client.transaction_by_hash(never) is None
    with pytest.raises(RefusedByNetwork):
        await net.client.broadcast(ANN.sign(BOB.key, 1, 1).to_bytes())


async def test_a_devnet_says_so_and_no_other_network_does(net: Net) -> None:
    assert await net.client.is_devnet() == (net.owner is not None)


async def test_a_payment_is_broadcast_runs_and_is_found(devnet: Net) -> None:
    assert devnet.owner is not None
    tick = (await devnet.client.tick_info()).tick + 5
    before = await devnet.client.balance(ANN.key)
    signed = ANN.sign(BOB.key, 700, tick)
    assert (await devnet.client.broadcast(signed.to_bytes())).tx_id == signed.id
    assert await devnet.client.transaction_by_hash(signed.id) is None
    await devnet.owner.step(8)
    found = await devnet.client.transaction_by_hash(signed.id)
    assert found is not None
    assert (found.amount_qu, found.tick, found.money_flew) == (700, tick, True)
    after = await devnet.client.balance(ANN.key)
    assert (after.outgoing_qu, after.outgoing_count) == (before.outgoing_qu + 700, before.outgoing_count + 1)


async def test_a_send_many_is_found_among_its_kind(devnet: Net) -> None:
    assert devnet.owner is not None
    tick = (await devnet.client.tick_info()).tick + 5
    payload, amount = send_to_many([(BOB.key, 30), (BOB.key, 40)])
    signed = ANN.sign(contract_id(QUTIL), amount, tick, SEND_TO_MANY_INPUT_TYPE, payload)
    await devnet.client.broadcast(signed.to_bytes())
    await devnet.owner.step(8)
    (found,) = await devnet.client.send_manys(tick - 5, tick)
    assert (found.tx_id, found.payload) == (signed.id, payload)
    logs = await devnet.client.qu_transfers(tick, BOB.key)
    assert logs is not None
    assert [log.amount_qu for log in logs] == [30, 40]


async def test_an_epochs_jump_is_skipped_ticks(devnet: Net) -> None:
    assert devnet.owner is not None
    tick = (await devnet.client.tick_info()).tick
    await devnet.owner.post("/devnet/v1/epoch", jump=50, pause=0)
    await devnet.owner.step(6)
    with pytest.raises(SkippedTick) as skipped:
        await devnet.client.tick_data(tick + 20)
    intervals = await devnet.client.processed_intervals()
    assert skipped.value.next_tick == intervals[-1].first_tick
    assert (await devnet.client.epoch_end()).tick_min is None


@pytest.mark.parametrize("kind", ["too_many_requests", "server_error", "no_peers"])
async def test_faults_pass_or_are_said(devnet: Net, kind: str) -> None:
    assert devnet.owner is not None
    signed = ANN.sign(BOB.key, 700, (await devnet.client.tick_info()).tick + 30).to_bytes()
    await devnet.owner.post("/devnet/v1/faults", kind=kind, count=1)
    assert (await devnet.client.broadcast(signed)).peers > 0
    await devnet.owner.post("/devnet/v1/faults", kind=kind, rate=1.0)
    with pytest.raises(Unreachable):
        await devnet.client.broadcast(signed)


async def test_an_invented_transaction_is_not_genuine(devnet: Net) -> None:
    assert devnet.owner is not None
    made = await devnet.owner.post("/devnet/v1/faults", kind="archive_invents", identity=BOB.identity, amount=1_000_000)
    await devnet.owner.step(max(0, made["target_tick"] - await devnet.owner.tick()) + 4)
    with pytest.raises(Untrusted):
        await devnet.client.transaction_by_hash(made["transaction_id"])
