# SPDX-License-Identifier: Apache-2.0
"""A network in the documented shapes (reference: qubic-http, archive-query-service v2), made of signed transactions.

As `httpx` transport, so that the client under test is the product's own down to its requests.
"""

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx

from qubix_chain import identity
from qubix_chain.transaction import Transaction

Json = dict[str, Any]


def told(tx: Transaction, *, money_flew: bool = True) -> Json:
    assert tx.signature is not None
    return {
        "hash": tx.id,
        "amount": str(tx.amount),
        "source": identity.encode(tx.source),
        "destination": identity.encode(tx.destination),
        "tickNumber": tx.tick,
        "timestamp": "1764000000000",
        "inputType": tx.input_type,
        "inputSize": len(tx.payload),
        "inputData": base64.b64encode(tx.payload).decode(),
        "signature": base64.b64encode(tx.signature).decode(),
        "moneyFlew": money_flew,
    }


def refusal(status: int, code: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": message, "details": []})


class Recorded:
    """`first` and `last` bound the archive; ticks in `skipped` were never made. `before` may answer in its place."""

    def __init__(self, *, first: int = 100, last: int = 200) -> None:
        self.first, self.last = first, last
        self.txs: list[Json] = []
        self.skipped: range = range(0)
        self.lite = False
        self.events: list[Json] | None = []
        self.before: Callable[[httpx.Request], httpx.Response | None] = lambda request: None
        self.asked: list[str] = []

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.asked.append(path)
        found = self.before(request)
        if found is not None:
            return found
        body: Json = json.loads(request.content) if request.content else {}
        if path.startswith("/live/v1/balances/"):
            return self._balance(path.rpartition("/")[2])
        return {
            "/live/v1/tick-info": self._tick_info,
            "/live/v1/broadcast-transaction": self._broadcast,
            "/query/v1/getLastProcessedTick": self._processed,
            "/query/v1/getProcessedTickIntervals": self._intervals,
            "/query/v1/getTransactionByHash": self._by_hash,
            "/query/v1/getTickData": self._tick_data,
            "/query/v1/getTransactionsForTick": self._for_tick,
            "/query/v1/getTransactionsForIdentity": self._for_identity,
            "/query/v1/getEventLogs": self._events,
        }[path](body)

    def _tick_info(self, body: Json) -> httpx.Response:
        found = {"tick": self.last + 2, "duration": 1, "epoch": 227, "initialTick": self.first}
        if self.lite:
            found["numberOfAlignedVotes"] = 451
        return httpx.Response(200, json={"tickInfo": found})

    def _balance(self, name: str) -> httpx.Response:
        mine = [tx for tx in self.txs if tx["destination"] == name]
        total = str(sum(int(tx["amount"]) for tx in mine))
        found = {
            "id": name,
            "balance": total,
            "validForTick": self.last + 2,
            "latestIncomingTransferTick": 0,
            "latestOutgoingTransferTick": 0,
            "incomingAmount": total,
            "outgoingAmount": "0",
            "numberOfIncomingTransfers": len(mine),
            "numberOfOutgoingTransfers": 0,
        }
        return httpx.Response(200, json={"balance": found})

    def _broadcast(self, body: Json) -> httpx.Response:
        tx = Transaction.parse(base64.b64decode(body["encodedTransaction"]))
        if tx.tick <= self.last + 2:
            text = f"Target tick: {tx.tick} for the transaction should be greater than max tick: {self.last + 2}"
            return refusal(400, 3, text)
        return httpx.Response(200, json={"peersBroadcasted": 3, **body, "transactionId": tx.id})

    def _processed(self, body: Json) -> httpx.Response:
        found = {"tickNumber": self.last, "epoch": 227, "intervalInitialTick": self.first}
        return httpx.Response(200, json={**found, "lastProcessedLogTick": self.last})

    def _intervals(self, body: Json) -> httpx.Response:
        if not self.skipped:
            return httpx.Response(200, json=[{"epoch": 227, "firstTick": self.first, "lastTick": self.last}])
        early = {"epoch": 226, "firstTick": self.first, "lastTick": self.skipped[0] - 1}
        return httpx.Response(
            200, json=[early, {"epoch": 227, "firstTick": self.skipped[-1] + 1, "lastTick": self.last}]
        )

    def _by_hash(self, body: Json) -> httpx.Response:
        found = next((tx for tx in self.txs if tx["hash"] == body["hash"]), None)
        return refusal(404, 5, "transaction not found") if found is None else httpx.Response(200, json=found)

    def _refused(self, tick: int) -> httpx.Response | None:
        begun = "invalid tick number: rpc error: code ="
        if tick > self.last:
            beyond = f"requested tick number {tick} is greater than last processed tick {self.last}"
            return refusal(400, 3, f"{begun} FailedPrecondition desc = {beyond}")
        if tick in self.skipped:
            skipped = f"provided tick number {tick} was skipped by the system, next available tick is"
            return refusal(400, 3, f"{begun} OutOfRange desc = {skipped} {self.skipped[-1] + 1}")
        return None

    def _tick_data(self, body: Json) -> httpx.Response:
        tick = body["tickNumber"]
        if refused := self._refused(tick):
            return refused
        hashes = [tx["hash"] for tx in self.txs if tx["tickNumber"] == tick]
        if not hashes:
            return httpx.Response(200, json={"tickData": None})
        found = {"tickNumber": tick, "epoch": 227, "computorIndex": 1, "timestamp": "1764000000000"}
        if self.lite:
            return httpx.Response(200, json={**found, "transactionDigests": hashes})
        return httpx.Response(200, json={"tickData": {**found, "transactionHashes": hashes, "signature": ""}})

    def _for_tick(self, body: Json) -> httpx.Response:
        tick = body["tickNumber"]
        return self._refused(tick) or httpx.Response(200, json=[tx for tx in self.txs if tx["tickNumber"] == tick])

    def _for_identity(self, body: Json) -> httpx.Response:
        filters, tick_range = body["filters"], body["ranges"].get("tickNumber")
        found = [tx for tx in self.txs if tx["destination"] == filters["destination"]]
        if "inputType" in filters:
            found = [tx for tx in found if tx["inputType"] == int(filters["inputType"])]
        if tick_range:
            assert int(tick_range["gte"]) < int(tick_range["lte"]), "a range must span more than one value"
            found = [tx for tx in found if int(tick_range["gte"]) <= tx["tickNumber"] <= int(tick_range["lte"])]
        else:
            found = [tx for tx in found if tx["tickNumber"] == int(filters["tickNumber"])]
        found.sort(key=lambda tx: -tx["tickNumber"])
        offset, size = body["pagination"]["offset"], body["pagination"]["size"]
        assert offset <= 10_000
        assert size <= 1000
        hits = {"total": len(found), "from": offset, "size": size}
        page = found[offset : offset + size]
        return httpx.Response(200, json={"validForTick": self.last, "hits": hits, "transactions": page})

    def _events(self, body: Json) -> httpx.Response:
        if self.events is None:
            return httpx.Response(404, text="404 page not found")
        filters = body["filters"]
        found = [
            one
            for one in self.events
            if one["tickNumber"] == int(filters["tickNumber"])
            and one["quTransfer"]["destination"] == filters["destination"]
        ]
        page = {"hits": {"total": len(found), "from": 0, "size": 1000}, "eventLogs": found, "validForTick": self.last}
        return httpx.Response(200, json=page)
