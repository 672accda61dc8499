# SPDX-License-Identifier: Apache-2.0
"""The client against recorded shapes: what it asks, what it believes, and what it makes of every refusal and lie."""

import asyncio
import time
from typing import Any

import httpx
import pytest

from qubix_chain import crypto, identity
from qubix_chain.rpc import Agreed, Client, FailOver
from qubix_chain.rpc.errors import (
    Disagreement,
    Malformed,
    NotYetProcessed,
    RefusedByNetwork,
    SkippedTick,
    Unreachable,
    Untrusted,
)
from qubix_chain.rpc.http import ANSWER_BYTES_MAX, Limits, retry_after_s
from qubix_chain.rpc.verified import verify
from qubix_chain.transaction import Transaction
from tests.chain.recorded import Json, Recorded, refusal, told

pytestmark = pytest.mark.asyncio
SEED = "a" * 55
SUBSEED = crypto.subseed(SEED)
SOURCE = crypto.public_key(crypto.private_key(SUBSEED))
TO = crypto.public_key(crypto.private_key(crypto.subseed("b" * 55)))
QUICK = Limits(try_s=30.0, deadline_s=60.0, tries_max=3)
"""Few tries; how long each may take is of account where nobody answers alone."""


def paid(tick: int, amount: int = 5) -> Transaction:
    return Transaction.build(source=SOURCE, destination=TO, amount=amount, tick=tick).sign(SEED)


def client(server: Recorded, limits: Limits = QUICK, url: str = "http://one.test") -> Client:
    return Client(url, transport=server.transport(), limits=limits)


async def test_every_call_reads_its_documented_form() -> None:
    server = Recorded()
    server.txs = [told(paid(150)), told(paid(151, 7))]
    one = client(server)
    info = await one.tick_info()
    assert (info.tick, info.epoch, info.initial_tick) == (202, 227, 100)
    balance = await one.balance(TO)
    assert (balance.amount_qu, balance.incoming_count, balance.valid_for_tick) == (12, 2, 202)
    processed = await one.last_processed_tick()
    assert (processed.tick, processed.log_tick) == (200, 200)
    assert [(it.first_tick, it.last_tick) for it in await one.processed_intervals()] == [(100, 200)]
    data = await one.tick_data(150)
    assert data is not None
    assert data.tx_ids == (paid(150).id,)
    assert await one.tick_data(149) is None
    assert [tx.amount_qu for tx in await one.transactions_for_tick(151)] == [7]
    assert [tx.tick for tx in await one.transactions_to(TO, 100, 200)] == [150, 151]
    assert [tx.tick for tx in await one.transactions_to(TO, 150, 150)] == [150]
    found = await one.transaction_by_hash(paid(150).id)
    assert found is not None
    assert (found.source, found.destination, found.money_flew) == (SOURCE, TO, True)
    assert await one.transaction_by_hash(paid(199).id) is None
    assert await one.qu_transfers(150, TO) == ()
    sent = await one.broadcast(paid(300).to_bytes())
    assert (sent.tx_id, sent.peers) == (paid(300).id, 3)
    await one.close()


async def test_core_lite_says_some_of_it_differently() -> None:
    server = Recorded()
    server.lite = True
    server.events = None
    server.txs = [told(paid(150))]
    one = client(server)
    assert (await one.tick_info()).tick == 202
    data = await one.tick_data(150)
    assert data is not None
    assert data.tx_ids == (paid(150).id,)
    assert await one.qu_transfers(150, TO) is None


async def test_what_a_source_cannot_do_it_is_asked_once_and_another_source_then() -> None:
    """501 is what a gateway says of a call that its node has not: no fault that passes."""
    lite, full = Recorded(), Recorded()
    lite.before = lambda request: refusal(501, 12, "Method Not Allowed")
    assert await client(lite).qu_transfers(150, TO) is None
    assert len(lite.asked) == 1
    both = FailOver([client(lite), client(full, url="http://two.test")])
    assert (await both.tick_info()).tick == 202
    assert len(lite.asked) == 2


async def test_what_the_archive_refuses_has_a_type() -> None:
    server = Recorded()
    server.skipped = range(120, 130)
    one = client(server)
    with pytest.raises(NotYetProcessed) as later:
        await one.tick_data(201)
    assert (later.value.tick, later.value.last_processed) == (201, 200)
    with pytest.raises(SkippedTick) as skipped:
        await one.transactions_for_tick(125)
    assert (skipped.value.tick, skipped.value.next_tick) == (125, 130)
    with pytest.raises(RefusedByNetwork, match="should be greater than max tick: 202"):
        await one.broadcast(paid(202).to_bytes())


def _busy(times: int, status: int, headers: dict[str, str] | None = None) -> Any:
    left = [times]

    def before(request: httpx.Request) -> httpx.Response | None:
        left[0] -= 1
        return httpx.Response(status, headers=headers, text="busy") if left[0] >= 0 else None

    return before


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_busy_servers_are_asked_again_and_then_given_up(status: int) -> None:
    server = Recorded()
    server.before = _busy(2, status)
    assert (await client(server).tick_info()).tick == 202
    assert len(server.asked) == 3
    server.asked.clear()
    server.before = _busy(99, status)
    with pytest.raises(Unreachable, match=str(status)):
        await client(server).tick_info()
    assert len(server.asked) == 3


async def test_the_server_says_how_long_to_wait_and_is_obeyed() -> None:
    server = Recorded()
    server.before = _busy(1, 429, {"Retry-After": "1"})
    began = time.monotonic()
    assert (await client(server, Limits(deadline_s=30)).tick_info()).tick == 202
    assert time.monotonic() - began >= 1.0
    server.before = _busy(1, 429, {"Retry-After": "3600"})
    with pytest.raises(Unreachable) as given_up:
        await client(server).tick_info()
    assert given_up.value.retry_after_s == 3600


async def test_waiting_times_are_numbers_or_dates() -> None:
    assert retry_after_s(None, 0) is None
    assert retry_after_s("7", 0) == 7
    assert retry_after_s("Thu, 01 Jan 1970 00:01:40 GMT", 40) == 60
    assert retry_after_s("soon", 0) is None


async def test_a_silent_server_is_given_up_in_time() -> None:
    async def silent(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(3600)
        raise AssertionError("nobody waits this long")

    one = Client("http://one.test", transport=httpx.MockTransport(silent), limits=Limits(0.05, 0.2, 9))
    with pytest.raises(Unreachable, match="did not answer"):
        await one.tick_info()


async def test_an_endless_answer_is_cut_off() -> None:
    server = Recorded()
    server.before = lambda request: httpx.Response(200, content=b" " * (ANSWER_BYTES_MAX + 1))
    with pytest.raises(Malformed, match="longer than"):
        await client(server).tick_info()


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 5},
        {"amount": "05"},
        {"amount": "-5"},
        {"amount": "5.0"},
        {"amount": " 5"},
        {"amount": "5\n"},
        {"amount": "9223372036854775808"},
        {"amount": "99999999999999999999"},
        {"tickNumber": "150"},
        {"tickNumber": 2**32},
        {"inputSize": 3},
        {"inputData": "!!"},
        {"signature": "AAAA"},
        {"source": "A" * 60},
        {"hash": "A" * 60},
    ],
)
async def test_what_is_not_in_the_documented_form_is_refused(change: Json) -> None:
    server = Recorded()
    server.txs = [told(paid(150)) | change]
    server.before = lambda request: httpx.Response(200, json=server.txs)
    with pytest.raises(Malformed):
        await client(server).transactions_for_tick(150)


@pytest.mark.parametrize("change", [{"amount": "6"}, {"destination": identity.encode(SOURCE)}, {"inputType": 1}])
async def test_a_changed_transaction_is_never_believed(change: Json) -> None:
    server = Recorded()
    server.txs = [told(paid(150)) | change]
    one = client(server)
    (claimed,) = await one.transactions_for_tick(150)
    with pytest.raises(Untrusted):
        verify(claimed)
    with pytest.raises(Untrusted):
        await one.transaction_by_hash(paid(150).id)


async def test_a_true_transaction_under_another_id_is_never_believed() -> None:
    server = Recorded()
    server.txs = [told(paid(150)) | {"hash": paid(151).id}]
    one = client(server)
    (claimed,) = await one.transactions_for_tick(150)
    with pytest.raises(Untrusted, match="really the id"):
        verify(claimed)


async def test_answers_about_something_else_are_refused() -> None:
    server = Recorded()
    server.before = lambda request: httpx.Response(200, json=told(paid(151)))
    with pytest.raises(Untrusted, match="asked for transaction"):
        await client(server).transaction_by_hash(paid(150).id)
    other = {"tickData": {"tickNumber": 151, "transactionHashes": []}}
    server.before = lambda request: httpx.Response(200, json=other)
    with pytest.raises(Malformed, match="asked for tick 150"):
        await client(server).tick_data(150)
    server.before = lambda request: httpx.Response(200, json=[told(paid(151))])
    with pytest.raises(Malformed, match="another one"):
        await client(server).transactions_for_tick(150)


async def test_a_transaction_told_twice_counts_once_and_told_in_two_ways_not_at_all() -> None:
    server = Recorded()
    server.txs = [told(paid(150)), told(paid(150))]
    assert len(await client(server).transactions_for_tick(150)) == 1
    assert len(await client(server).transactions_to(TO, 100, 200)) == 1
    server.txs[1]["moneyFlew"] = False
    with pytest.raises(Malformed, match="two ways"):
        await client(server).transactions_for_tick(150)


async def test_long_histories_come_page_by_page_and_whole() -> None:
    server = Recorded(first=100, last=20_000)
    one_tx = told(paid(150))
    letters = "abcdefghijklmnopqrstuvwxyz"

    def numbered(n: int) -> str:
        return "".join(letters[n // 26**k % 26] for k in range(4)) + "q" * 56

    server.txs = [one_tx | {"hash": numbered(n), "tickNumber": 150 + n // 3} for n in range(10_500)]
    found = await client(server).transactions_to(TO, 100, 20_000)
    assert len(found) == 10_500
    assert [tx.tick for tx in found] == sorted(tx.tick for tx in found)


async def test_another_source_answers_when_the_first_does_not() -> None:
    one, other = Recorded(), Recorded(last=300)
    both = FailOver([client(one), client(other, url="http://two.test")])
    assert (await both.tick_info()).tick == 202
    one.before = _busy(99, 503)
    assert (await both.tick_info()).tick == 302
    asked = len(one.asked)
    assert (await both.tick_info()).tick == 302
    assert len(one.asked) == asked, "the one that answered is asked first"
    other.before = _busy(99, 503)
    one.before = lambda request: None
    assert (await both.tick_info()).tick == 202
    one.before = _busy(99, 503)
    with pytest.raises(Unreachable):
        await both.tick_info()


async def test_two_sources_count_only_where_they_agree() -> None:
    one, other = Recorded(), Recorded(last=190)
    one.txs, other.txs = [told(paid(150))], [told(paid(150))]
    both = Agreed(client(one), client(other, url="http://two.test"))
    assert (await both.last_processed_tick()).tick == 190
    assert [tx.tx_id for tx in await both.transactions_for_tick(150)] == [paid(150).id]
    assert [it.last_tick for it in await both.processed_intervals()] == [190]
    with pytest.raises(NotYetProcessed):
        await both.tick_data(195)

    other.txs = [told(paid(150), money_flew=False)]
    with pytest.raises(Disagreement):
        await both.transactions_for_tick(150)
    with pytest.raises(Disagreement):
        await both.transaction_by_hash(paid(150).id)
    other.txs = []
    for ask in (both.transactions_for_tick(150), both.tick_data(150), both.transactions_to(TO, 100, 180)):
        with pytest.raises(Disagreement):
            await ask
    one.skipped = range(120, 130)
    with pytest.raises(Disagreement):
        await both.tick_data(125)
    with pytest.raises(Disagreement):
        await both.processed_intervals()
    other.skipped = range(120, 130)
    with pytest.raises(SkippedTick):
        await both.tick_data(125)
    other.before = _busy(99, 503)
    with pytest.raises(Unreachable):
        await both.transactions_for_tick(150)
