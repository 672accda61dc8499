# SPDX-License-Identifier: Apache-2.0
"""The devnet's API: the network's exact shapes and refusals, the faults, and its own prefix."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from qubix_chain.contracts import QUTIL, contract_id, send_to_many
from qubix_chain.devnet.app import Devnet
from qubix_chain.devnet.faults import Fault, Faults, draw
from qubix_chain.devnet.network import FAUCET_QU, FIRST_TICK
from qubix_chain.identity import decode
from tests.chain.vectors import VECTORS
from tests.support.devnet import DevnetClient, Wallet, devnet_client

pytestmark = pytest.mark.asyncio
ANN, BOB, CAT = Wallet("ann"), Wallet("bob"), Wallet("cat")
QUERY = "/query/v1"


@pytest_asyncio.fixture
async def devnet(tmp_path: Path) -> AsyncIterator[tuple[DevnetClient, Devnet]]:
    async with devnet_client(tmp_path) as made:
        yield made


@pytest_asyncio.fixture
async def client(devnet: tuple[DevnetClient, Devnet]) -> DevnetClient:
    return devnet[0]


# The documented shapes


async def test_tick_info_and_an_identity_never_paid(client: DevnetClient) -> None:
    assert await client.get("/live/v1/tick-info") == {
        "tickInfo": {"tick": FIRST_TICK, "duration": 1, "epoch": 200, "initialTick": FIRST_TICK}
    }
    assert await client.balance(ANN) == {
        "id": ANN.identity,
        "balance": "0",
        "validForTick": FIRST_TICK,
        "latestIncomingTransferTick": 0,
        "latestOutgoingTransferTick": 0,
        "incomingAmount": "0",
        "outgoingAmount": "0",
        "numberOfIncomingTransfers": 0,
        "numberOfOutgoingTransfers": 0,
    }


async def test_a_payment_from_broadcast_to_archive(client: DevnetClient) -> None:
    await client.fund(ANN, 1000)
    target = await client.tick() + 3
    signed = ANN.sign(BOB.key, 400, target)
    encoded = base64.b64encode(signed.to_bytes()).decode()
    assert await client.post("/live/v1/broadcast-transaction", encodedTransaction=encoded) == {
        "peersBroadcasted": 3,
        "encodedTransaction": encoded,
        "transactionId": signed.id,
    }
    await client.step(3)
    assert (await client.balance(BOB))["balance"] == "0"
    await client.step(1)
    found = await client.balance(BOB)
    assert (found["balance"], found["latestIncomingTransferTick"], found["validForTick"]) == ("400", target, target + 1)
    # It is final at once; the archive tells it two ticks later.
    status, told = await client.refused(f"{QUERY}/getTransactionByHash", hash=signed.id)
    assert (status, told) == (404, {"code": 5, "message": "transaction not found", "details": []})
    assert (await client.get(f"{QUERY}/getLastProcessedTick"))["tickNumber"] == target - 2
    await client.step(2)
    assert await client.get(f"{QUERY}/getLastProcessedTick") == {
        "tickNumber": target,
        "epoch": 200,
        "intervalInitialTick": FIRST_TICK,
        "lastProcessedLogTick": target,
    }
    archived = await client.post(f"{QUERY}/getTransactionByHash", hash=signed.id)
    timestamp = archived["timestamp"]
    assert archived == {
        "hash": signed.id,
        "amount": "400",
        "source": ANN.identity,
        "destination": BOB.identity,
        "tickNumber": target,
        "timestamp": timestamp,
        "inputType": 0,
        "inputSize": 0,
        "inputData": "",
        "signature": base64.b64encode(signed.signature or b"").decode(),
        "moneyFlew": True,
    }
    assert timestamp.isdigit()
    assert await client.post(f"{QUERY}/getTransactionsForTick", tickNumber=target) == [archived]
    data = (await client.post(f"{QUERY}/getTickData", tickNumber=target))["tickData"]
    assert set(data) == {
        "tickNumber",
        "epoch",
        "computorIndex",
        "timestamp",
        "varStruct",
        "timeLock",
        "transactionHashes",
        "contractFees",
        "signature",
    }
    assert (data["tickNumber"], data["epoch"], data["transactionHashes"]) == (target, 200, [signed.id])
    page = await client.post(f"{QUERY}/getTransactionsForIdentity", identity=BOB.identity)
    assert page == {
        "validForTick": target,
        "hits": {"total": 1, "from": 0, "size": 10},
        "transactions": [archived],
    }
    logs = await client.post(f"{QUERY}/getEventLogs", filters={"destination": BOB.identity, "logType": "0"})
    assert (logs["hits"]["total"], logs["validForTick"]) == (1, target)
    (log,) = logs["eventLogs"]
    assert log["quTransfer"] == {"source": ANN.identity, "destination": BOB.identity, "amount": "400"}
    assert (log["transactionHash"], log["tickNumber"], log["epoch"], log["logType"], log["categories"]) == (
        signed.id,
        target,
        200,
        0,
        [],
    )
    assert log["logId"].isdigit()
    assert len(bytes.fromhex(log["logDigest"])) == 8


async def test_send_to_many_shows_in_the_event_log_alone(client: DevnetClient) -> None:
    await client.fund(ANN, 1000)
    payload, total = send_to_many([(BOB.key, 100), (CAT.key, 200)])
    signed = ANN.sign(contract_id(QUTIL), total, await client.tick() + 3, 1, payload)
    await client.broadcast(signed)
    await client.step(6)
    assert (await client.balance(BOB))["balance"] == "100"
    assert (await client.post(f"{QUERY}/getTransactionsForIdentity", identity=BOB.identity))["transactions"] == []
    logs = await client.post(f"{QUERY}/getEventLogs", filters={"transactionHash": signed.id})
    moves = [one.get("quTransfer", one.get("burning")) for one in reversed(logs["eventLogs"])]
    assert [move["amount"] for move in moves] == [str(total), "100", "200", "10"]
    assert [one["logType"] for one in reversed(logs["eventLogs"])] == [0, 0, 0, 8]


async def test_the_fee_of_send_to_many_is_asked_of_the_contract(client: DevnetClient) -> None:
    path = "/live/v1/querySmartContract"
    found = await client.post(path, contractIndex=QUTIL, inputType=1, inputSize=0, requestData="")
    assert int.from_bytes(base64.b64decode(found["responseData"]), "little") == 10
    status, told = await client.refused(path, contractIndex=11, inputType=7, inputSize=0, requestData="")
    assert (status, told["code"]) == (404, 5)
    assert "contract 11" in told["message"]


# Refusals


async def test_broadcast_checks_the_bytes_the_signature_and_the_tick_alone(client: DevnetClient) -> None:
    path = "/live/v1/broadcast-transaction"
    now = await client.tick()
    late = ANN.sign(BOB.key, 1, now)
    raw = ANN.sign(BOB.key, 1, now + 5).to_bytes()
    for wrong, told in (
        (late.to_bytes(), f"Target tick: {now} for the transaction should be greater than max tick: {now}"),
        (raw + b"\0", "length"),
        (raw[:-1] + bytes([raw[-1] ^ 1]), "signature"),
        (raw[:64] + (10**15 + 1).to_bytes(8, "little") + raw[72:], "amount"),
        (b"", "length"),
    ):
        status, body = await client.refused(path, encodedTransaction=base64.b64encode(wrong).decode())
        assert (status, body["code"], body["details"]) == (400, 3, [])
        assert told in body["message"]
    for wrong_text in ("%%%", None, 5):
        assert (await client.refused(path, encodedTransaction=wrong_text))[0] == 400
    # Nobody is told that this one goes nowhere: its source has nothing, and its tick's list is fixed.
    assert await client.broadcast(ANN.sign(BOB.key, 1, now + 1))
    assert await client.broadcast(ANN.sign(BOB.key, 1, now + 9))
    assert (await client.status())["dropped"] == {"late": 1, "no_balance": 1}


@pytest.mark.parametrize("index", range(len(VECTORS["verify_negative"])))
async def test_no_signature_that_a_node_refuses_is_broadcast(client: DevnetClient, index: int) -> None:
    """The forgeries of the vectors, as the signature of a transaction whose bytes they do not fit either way."""
    case = VECTORS["verify_negative"][index]
    key, signature = (bytes.fromhex(case[name]) for name in ("public_key", "signature"))
    body = key + BOB.key + (1).to_bytes(8, "little") + (FIRST_TICK + 9).to_bytes(4, "little") + bytes(4)
    encoded = base64.b64encode(body + signature).decode()
    assert (await client.refused("/live/v1/broadcast-transaction", encodedTransaction=encoded))[0] == 400


async def test_the_archive_refuses_ticks_that_it_has_not_and_that_never_were(client: DevnetClient) -> None:
    await client.step(5)
    await client.post("/devnet/v1/epoch", jump=100)
    await client.step(5)
    first, last = FIRST_TICK + 105, FIRST_TICK + 107
    assert await client.get(f"{QUERY}/getProcessedTickIntervals") == [
        {"epoch": 200, "firstTick": FIRST_TICK, "lastTick": FIRST_TICK + 4},
        {"epoch": 201, "firstTick": first, "lastTick": last},
    ]
    begun = "invalid tick number: rpc error: code ="
    for path in ("getTickData", "getTransactionsForTick"):
        for tick, told in (
            (
                last + 1,
                f"FailedPrecondition desc = requested tick number {last + 1}"
                f" is greater than last processed tick {last}",
            ),
            (
                FIRST_TICK + 50,
                f"OutOfRange desc = provided tick number {FIRST_TICK + 50} was skipped by the system,"
                f" next available tick is {first}",
            ),
            (
                5,
                f"OutOfRange desc = provided tick number 5 was skipped by the system,"
                f" next available tick is {FIRST_TICK}",
            ),
        ):
            answer = await client.refused(f"{QUERY}/{path}", tickNumber=tick)
            assert answer == (400, {"code": 3, "message": f"{begun} {told}", "details": []})


async def test_before_its_first_tick_the_archive_says_which_one_that_will_be(client: DevnetClient) -> None:
    for path in ("getTickData", "getTransactionsForTick"):
        status, answer = await client.refused(f"{QUERY}/{path}", tickNumber=5)
        assert (status, answer["code"]) == (400, 3)
        assert f"next available tick is {FIRST_TICK}" in answer["message"]


async def test_filters_ranges_and_pages(client: DevnetClient) -> None:
    await client.fund(ANN, 1000)
    target = await client.tick() + 3
    for amount in (10, 20, 30):
        await client.broadcast(ANN.sign(BOB.key, amount, target))
        target += 1
    await client.step(8)

    async def amounts(**body: object) -> list[str]:
        found = await client.post(f"{QUERY}/getTransactionsForIdentity", identity=ANN.identity, **body)
        return [one["amount"] for one in found["transactions"]]

    assert await amounts() == ["30", "20", "10", "1000"]
    assert await amounts(filters={"source": ANN.identity}) == ["30", "20", "10"]
    assert await amounts(exclude={"source": f"{ANN.identity}, {CAT.identity}"}) == ["1000"]
    assert await amounts(ranges={"amount": {"gt": "10", "lt": "30"}}) == ["20"]
    assert await amounts(ranges={"amount": {"gte": "10", "lte": "20"}}) == ["20", "10"]
    assert await amounts(ranges={"amount": {"gt": str(2**63 - 1)}}) == []
    assert await amounts(ranges={"tickNumber": {"gte": str(target - 2)}}, filters={"amount": "20"}) == ["20"]
    assert await amounts(pagination={"offset": 1, "size": 2}) == ["20", "10"]
    by_should = [{"terms": {"source": CAT.identity, "destination": BOB.identity}}]
    assert (await client.post(f"{QUERY}/getEventLogs", should=by_should))["hits"]["total"] == 3


@pytest.mark.parametrize(
    "body",
    [
        {"identity": "short"},
        {"identity": ANN.identity.lower()},
        {"filters": {"nonsense": "1"}},
        {"filters": {"source": ",".join([ANN.identity] * 6)}},
        {"filters": {"amount": "-1"}},
        {"filters": {"amount": "1"}, "ranges": {"amount": {"gt": "1"}}},
        {"ranges": {"tickNumber": {"gte": "5", "lte": "5"}}},
        {"ranges": {"tickNumber": {"gt": "5", "gte": "5"}}},
        {"ranges": {"tickNumber": {}}},
        {"ranges": {"tickNumber": {"lte": "9999999999"}}},
        {"pagination": {"size": 1001}},
        {"pagination": {"offset": 10001}},
        {"ranges": []},
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(client: DevnetClient, body: dict[str, object]) -> None:
    status, told = await client.refused(f"{QUERY}/getTransactionsForIdentity", **{"identity": ANN.identity, **body})
    assert (status, told["code"], told["details"]) == (400, 3, [])
    assert told["message"].startswith("invalid ")


async def test_what_is_not_json_or_not_there_is_told_in_the_same_form(client: DevnetClient) -> None:
    for request, status, code in (
        (client.http.post(f"{QUERY}/getTickData", content=b"{"), 400, 3),
        (client.http.post(f"{QUERY}/getTickData", content=b"[1]"), 400, 3),
        (client.http.get("/live/v1/balances/nobody"), 400, 3),
        (client.http.get("/live/v1/nothing"), 404, 5),
        (client.http.get(f"{QUERY}/getTickData"), 405, 12),
        (client.http.get("/live/v1/tick-info", headers={"Host": "evil.example"}), 403, 7),
        (client.http.post("/devnet/v1/clock/step", headers={"Origin": "https://evil.example"}), 403, 7),
        (client.http.post("/devnet/v1/clock/step", content=b"x" * 70_000), 413, 8),
    ):
        answer = await request
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert set(answer.json()) == {"code", "message", "details"}


# The devnet's own prefix


async def test_every_word_of_its_own_says_devnet(client: DevnetClient) -> None:
    for answer in (
        await client.status(),
        await client.step(),
        await client.post("/devnet/v1/clock/pause"),
        await client.post("/devnet/v1/clock/speed", tick_ms=250),
        await client.get("/devnet/v1/faults"),
    ):
        assert answer["network"] == "devnet"
    assert (await client.status())["tick_ms"] == 250


async def test_the_faucet_pays_by_a_signed_transfer_of_a_fixed_supply(client: DevnetClient) -> None:
    first = await client.post("/devnet/v1/faucet", identity=ANN.identity, amount=10**6)
    twin = await client.post("/devnet/v1/faucet", identity=ANN.identity, amount=10**6)
    assert first["transaction_id"] != twin["transaction_id"]
    await client.step(7)
    found = await client.post(f"{QUERY}/getTransactionByHash", hash=first["transaction_id"])
    assert (found["source"], found["moneyFlew"]) == (first["faucet"], True)
    status = await client.status()
    assert (await client.balance(ANN))["balance"] == "2000000"
    assert int(status["supply"]) + int(status["burned"]) == int(status["minted"]) == FAUCET_QU


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("faucet", {"identity": ANN.identity, "amount": 0}, "amount"),
        ("faucet", {"identity": ANN.identity, "amount": 10**15 + 1}, "amount"),
        ("faucet", {"identity": ANN.identity, "amount": FAUCET_QU + 1}, "faucet pays"),
        ("faucet", {"identity": ANN.identity, "amount": 1.5}, "amount"),
        ("faucet", {"identity": ANN.identity, "amount": True}, "amount"),
        ("faucet", {"identity": "A" * 60, "amount": 1}, "checksum"),
        ("faucet", {"identity": ANN.identity, "amount": 1, "to": 2}, "to"),
        ("clock/step", {"ticks": 0}, "ticks"),
        ("clock/speed", {"tick_ms": 1}, "tick_ms"),
        ("epoch", {}, "no tick yet"),
        ("faults", {"kind": "nonsense"}, "empty_tick"),
        ("faults", {"kind": "empty_tick", "rate": 2}, "between 0 and 1"),
        ("faults", {"kind": "empty_tick", "rate": 0.5, "count": 1}, "exclude each other"),
        ("faults", {"kind": "empty_tick", "transaction": "a" * 60}, "no single transaction"),
        ("faults", {"kind": "archive_invents", "identity": ANN.identity}, "amount"),
    ],
)
async def test_what_the_prefix_cannot_do_it_says(
    client: DevnetClient, path: str, body: dict[str, object], told: str
) -> None:
    status, answer = await client.refused(f"/devnet/v1/{path}", **body)
    assert status == 400
    assert told in answer["message"]


async def test_an_epoch_s_pause_holds_the_ticks_and_the_lists_start_anew(client: DevnetClient) -> None:
    await client.fund(ANN, 100)
    lost = await client.broadcast(ANN.sign(BOB.key, 1, await client.tick() + 9))
    before = await client.tick()
    after = await client.post("/devnet/v1/epoch", jump=1000, pause=4)
    assert (after["tick"], after["epoch"], after["pause_left"]) == (before + 1000, 201, 4)
    assert (await client.step(4))["ticks_made"] == 0
    assert await client.tick() == before + 1000
    assert (await client.step(20))["ticks_made"] == 20
    assert (await client.refused(f"{QUERY}/getTransactionByHash", hash=lost))[0] == 404


# Faults


async def test_empty_dropped_and_duplicated(client: DevnetClient) -> None:
    await client.fund(ANN, 1000)
    target = await client.tick() + 3
    await client.post("/devnet/v1/faults", kind="drop_transaction")
    dropped = await client.broadcast(ANN.sign(BOB.key, 1, target))
    await client.post("/devnet/v1/faults", kind="duplicate_transaction")
    twice = await client.broadcast(ANN.sign(BOB.key, 2, target))
    dead = await client.broadcast(ANN.sign(BOB.key, 4, target + 1))
    await client.step(4)
    await client.post("/devnet/v1/faults", kind="empty_tick")
    await client.step(4)
    assert (await client.balance(BOB))["incomingAmount"] == "2"
    assert (await client.post(f"{QUERY}/getTransactionByHash", hash=twice))["moneyFlew"] is True
    for gone in (dropped, dead):
        assert (await client.refused(f"{QUERY}/getTransactionByHash", hash=gone))[0] == 404
    assert await client.post(f"{QUERY}/getTickData", tickNumber=target + 1) == {"tickData": None}
    assert await client.post(f"{QUERY}/getTransactionsForTick", tickNumber=target + 1) == []
    assert (await client.status())["dropped"] == {"lost": 1, "duplicate": 1, "empty_tick": 1}


async def test_requests_fail_as_armed_and_the_prefix_never_does(client: DevnetClient) -> None:
    for kind, status, code in (("too_many_requests", 429, 8), ("server_error", 500, 13)):
        await client.post("/devnet/v1/faults", kind=kind, count=2)
        assert (await client.status())["network"] == "devnet"
        for _ in range(2):
            answer = await client.http.get("/live/v1/tick-info")
            assert (answer.status_code, answer.json()["code"]) == (status, code)
        await client.get("/live/v1/tick-info")
    await client.fund(ANN, 5)
    await client.post("/devnet/v1/faults", kind="no_peers")
    encoded = base64.b64encode(ANN.sign(BOB.key, 1, await client.tick() + 5).to_bytes()).decode()
    status, told = await client.refused("/live/v1/broadcast-transaction", encodedTransaction=encoded)
    assert (status, told["code"]) == (500, 13)
    assert told["message"] == "tx wasn't broadcast to any peers, please retry"
    assert (await client.status())["pending"] == 0


async def test_a_lagging_archive_stands_and_catches_up(client: DevnetClient) -> None:
    await client.step(5)
    await client.post("/devnet/v1/faults", kind="lagging_archive", count=10)
    await client.step(10)
    assert (await client.status())["archived_tick"] == FIRST_TICK + 2
    await client.step(1)
    assert (await client.status())["archived_tick"] == FIRST_TICK + 13


async def test_the_archive_lies_as_told_and_heals(client: DevnetClient) -> None:
    true = [await client.fund(ANN, amount) for amount in (100, 200, 300)]
    for kind, tx_id in zip(("archive_omits", "archive_repeats", "archive_misstates"), true, strict=True):
        await client.post("/devnet/v1/faults", kind=kind, transaction=tx_id)
    made = await client.post("/devnet/v1/faults", kind="archive_invents", identity=ANN.identity, amount=10**9)
    await client.step(3)

    async def told() -> list[tuple[str, str, bool]]:
        found = await client.post(f"{QUERY}/getTransactionsForIdentity", identity=ANN.identity)
        return [(one["hash"], one["amount"], one["moneyFlew"]) for one in found["transactions"]]

    assert await told() == [
        (made["transaction_id"], "1000000000", True),
        (true[2], "300", False),
        (true[1], "200", True),
        (true[1], "200", True),
    ]
    assert (await client.refused(f"{QUERY}/getTransactionByHash", hash=true[0]))[0] == 404
    logs = await client.post(f"{QUERY}/getEventLogs", filters={"destination": ANN.identity})
    assert [one["quTransfer"]["amount"] for one in logs["eventLogs"]] == ["1000000000", "300", "200", "200"]
    # Nodes do not lie: what the live API says stays true.
    assert (await client.balance(ANN))["balance"] == "600"
    await client.http.delete("/devnet/v1/faults")
    assert await told() == [(true[2], "300", True), (true[1], "200", True), (true[0], "100", True)]


async def test_a_lie_can_be_aimed_at_what_has_not_run_yet(client: DevnetClient) -> None:
    await client.fund(ANN, 100)
    signed = ANN.sign(BOB.key, 1, await client.tick() + 3)
    await client.post("/devnet/v1/faults", kind="archive_omits", transaction=signed.id)
    await client.broadcast(signed)
    await client.step(6)
    assert (await client.balance(BOB))["balance"] == "1"
    assert (await client.refused(f"{QUERY}/getTransactionByHash", hash=signed.id))[0] == 404


async def test_a_seed_is_a_history(tmp_path: Path) -> None:
    """The same seed, rates and calls: the same ticks, to the last digest. Another seed: another history."""

    async def play(name: str, seed: int) -> tuple[str, str]:
        rates = ("empty_tick=0.2", "drop_transaction=0.2", "archive_invents=0.1", "lagging_archive=0.2")
        async with devnet_client(tmp_path / name, seed=seed, fault_rates=rates) as (client, _):
            for amount in range(1, 30):
                await client.post("/devnet/v1/faucet", identity=ANN.identity, amount=amount)
                await client.step(2)
            status = await client.status()
            assert int(status["supply"]) == FAUCET_QU
            return status["history"], (await client.balance(ANN))["balance"]

    first, again, other = await play("a", 7), await play("b", 7), await play("c", 8)
    assert first == again
    assert first != other
    assert 0 < int(first[1]) < sum(range(1, 30))


async def test_draws_are_even_and_armed_faults_are_used_up() -> None:
    drawn = [draw(1, Fault.EMPTY_TICK, tick) for tick in range(2000)]
    assert all(0 <= one < 1 for one in drawn)
    assert 0.45 < sum(drawn) / len(drawn) < 0.55
    faults = Faults(1, armed={Fault.NO_PEERS: 2})
    assert [faults.hit(Fault.NO_PEERS, n) for n in range(4)] == [True, True, False, False]


async def test_the_faucet_s_identity_is_a_real_one(client: DevnetClient) -> None:
    assert len(decode((await client.status())["faucet"])) == 32
