# SPDX-License-Identifier: Apache-2.0
"""One source's view of the network: typed calls of `/live/v1` and `/query/v1`."""

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import httpx

from qubix_chain import identity
from qubix_chain.contracts import QUTIL, SEND_TO_MANY_INPUT_TYPE, contract_id
from qubix_chain.rpc import epochs, wire
from qubix_chain.rpc.errors import Malformed, NotYetProcessed, RefusedByNetwork, Untrusted
from qubix_chain.rpc.http import Answer, Http, Limits
from qubix_chain.rpc.types import (
    Archived,
    Balance,
    Broadcast,
    EpochEnd,
    Interval,
    Processed,
    QuTransfer,
    TickData,
    TickInfo,
)
from qubix_chain.rpc.verified import verify
from qubix_chain.transaction import Transaction

LIVE: Final = "/live/v1"
QUERY: Final = "/query/v1"
DEVNET_STATUS: Final = "/devnet/v1/status"
PAGE: Final = 1000
OFFSET_MAX: Final = 10_000
SEND_MANY: Final = contract_id(QUTIL)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Client:
    """Close it when done. `weekly` is whether epochs end by the calendar, as all but a devnet's do."""

    def __init__(
        self,
        base_url: str,
        *,
        limits: Limits | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        weekly: bool = True,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._http = Http(base_url, limits=limits, transport=transport)
        self._weekly, self._now = weekly, now

    @property
    def url(self) -> str:
        return self._http.url

    async def close(self) -> None:
        await self._http.close()

    async def is_devnet(self) -> bool:
        """A devnet says so itself, under its own prefix; no other network has that path."""
        answer = await self._http.get(DEVNET_STATUS)
        return answer.status == 200 and wire.network(answer.body) == "devnet"

    # What is now

    async def tick_info(self) -> TickInfo:
        return wire.tick_info(_good(await self._http.get(f"{LIVE}/tick-info")))

    async def balance(self, public_key: bytes) -> Balance:
        answer = await self._http.get(f"{LIVE}/balances/{identity.encode(public_key)}")
        return wire.balance(_good(answer), public_key)

    async def broadcast(self, raw: bytes) -> Broadcast:
        """Raises RefusedByNetwork; ValueError for bytes that are no signed transaction, which are never sent."""
        tx_id = Transaction.parse(raw, verify=False).id
        body = {"encodedTransaction": base64.b64encode(raw).decode("ascii")}
        taken = wire.broadcast(_good(await self._http.post(f"{LIVE}/broadcast-transaction", body)))
        if taken.tx_id != tx_id:
            raise Untrusted(f"transaction {tx_id} was taken for {taken.tx_id}")
        return taken

    async def epoch_end(self) -> EpochEnd:
        info = await self.tick_info()
        return epochs.end(info, self._now()) if self._weekly else EpochEnd(info.epoch, None, None)

    # The archive

    async def last_processed_tick(self) -> Processed:
        return wire.processed(_good(await self._http.get(f"{QUERY}/getLastProcessedTick")))

    async def processed_intervals(self) -> tuple[Interval, ...]:
        return wire.intervals(_good(await self._http.get(f"{QUERY}/getProcessedTickIntervals")))

    async def transaction_by_hash(self, tx_id: str) -> Archived | None:
        answer = await self._http.post(f"{QUERY}/getTransactionByHash", {"hash": tx_id})
        if answer.status == 404 and wire.problem(answer.body)[0] == wire.NOT_FOUND:
            return None
        found = verify(wire.transaction(_good(answer)))
        if found.tx_id != tx_id:
            raise Untrusted(f"asked for transaction {tx_id} and got {found.tx_id}")
        return found

    async def tick_data(self, tick: int) -> TickData | None:
        answer = await self._http.post(f"{QUERY}/getTickData", {"tickNumber": tick})
        return wire.tick_data(_of_tick(answer, tick), tick)

    async def transactions_for_tick(self, tick: int) -> tuple[Archived, ...]:
        answer = await self._http.post(f"{QUERY}/getTransactionsForTick", {"tickNumber": tick})
        return wire.transactions(_of_tick(answer, tick), tick)

    async def transactions_to(self, public_key: bytes, first_tick: int, last_tick: int) -> tuple[Archived, ...]:
        return await self._to(public_key, {}, first_tick, last_tick)

    async def send_manys(self, first_tick: int, last_tick: int) -> tuple[Archived, ...]:
        """All SendToManyV1 in these ticks, unverified, in ascending order of ticks."""
        return await self._to(SEND_MANY, {"inputType": str(SEND_TO_MANY_INPUT_TYPE)}, first_tick, last_tick)

    async def _to(
        self, public_key: bytes, more: dict[str, str], first_tick: int, last_tick: int
    ) -> tuple[Archived, ...]:
        """Halves the range where one query cannot reach all of it."""
        name = identity.encode(public_key)
        filters, ranges = {"destination": name, **more}, {}
        if first_tick == last_tick:  # a range must span more than one value
            filters["tickNumber"] = str(first_tick)
        else:
            ranges["tickNumber"] = {"gte": str(first_tick), "lte": str(last_tick)}
        found: list[Archived] = []
        total = 1
        while len(found) < total:
            pagination = {"offset": len(found), "size": PAGE}
            body = {"identity": name, "filters": filters, "ranges": ranges, "pagination": pagination}
            page = wire.page(_good(await self._http.post(f"{QUERY}/getTransactionsForIdentity", body)))
            if page.total > OFFSET_MAX and first_tick < last_tick:
                middle = (first_tick + last_tick) // 2
                early = await self._to(public_key, more, first_tick, middle)
                return early + await self._to(public_key, more, middle + 1, last_tick)
            total = page.total
            if page.valid_for_tick is not None and page.valid_for_tick < last_tick:
                raise NotYetProcessed(last_tick, page.valid_for_tick)
            if not page.transactions and len(found) < total:
                raise Malformed(f"the archive announced {total} transactions and gave {len(found)}")
            found.extend(page.transactions)
        _check_all(found, public_key, first_tick, last_tick)
        return tuple(sorted(wire.once(found), key=lambda tx: tx.tick))

    async def qu_transfers(self, tick: int, destination: bytes) -> tuple[QuTransfer, ...] | None:
        filters = {"tickNumber": str(tick), "logType": "0", "destination": identity.encode(destination)}
        found: list[QuTransfer] = []
        seen, total = 0, 1
        while seen < total:
            body = {"filters": filters, "pagination": {"offset": seen, "size": PAGE}}
            answer = await self._http.post(f"{QUERY}/getEventLogs", body)
            if answer.status in (404, 405, 501):
                return None
            page = wire.event_page(_of_tick(answer, tick))
            if page.total > OFFSET_MAX or (not page.logs and seen < page.total):
                raise Malformed(f"tick {tick} has more event logs than the archive gives")
            total, seen = page.total, seen + page.logs
            found.extend(page.transfers)
        if any(log.tick != tick or log.destination != destination for log in found):
            raise Malformed("the archive gave event logs that were not asked for")
        return tuple(sorted(found, key=lambda log: log.log_id))


def _good(answer: Answer) -> bytes:
    if answer.status == 200:
        return answer.body
    code, message = wire.problem(answer.body)
    if code and answer.status < 500:
        raise RefusedByNetwork(message[:300] or f"code {code}")
    raise Malformed(f"the answer has status {answer.status} and is in no known form")


def _of_tick(answer: Answer, tick: int) -> bytes:
    if answer.status != 200:
        refusal = wire.tick_refusal(wire.problem(answer.body)[1], tick)
        if refusal is not None:
            raise refusal
    return _good(answer)


def _check_all(found: Sequence[Archived], destination: bytes, first_tick: int, last_tick: int) -> None:
    if any(tx.destination != destination or not first_tick <= tx.tick <= last_tick for tx in found):
        raise Malformed("the archive gave transactions that were not asked for")
