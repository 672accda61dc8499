# SPDX-License-Identifier: Apache-2.0
"""`/query/v1`: what the archive says of ticks that are final."""

from quart import Blueprint
from quart.wrappers import Response as QuartResponse

from qubix_chain.devnet.archive import Archive, check_number
from qubix_chain.devnet.http.edge import answer, body


def blueprint(archive: Archive) -> Blueprint:
    api = Blueprint("query", __name__, url_prefix="/query/v1")

    @api.get("/getLastProcessedTick")
    async def last_processed_tick() -> QuartResponse:
        return answer(archive.last_processed_tick())

    @api.get("/getProcessedTickIntervals")
    async def intervals() -> QuartResponse:
        return answer(archive.intervals())

    @api.post("/getTransactionByHash")
    async def transaction() -> QuartResponse:
        return answer(archive.transaction((await body()).get("hash", "")))

    @api.post("/getTransactionsForTick")
    async def tick_transactions() -> QuartResponse:
        given = await body()
        tick = check_number("tickNumber", given.get("tickNumber"))
        return answer(archive.tick_transactions(tick, given.get("filters"), given.get("ranges")))

    @api.post("/getTickData")
    async def tick_data() -> QuartResponse:
        tick = check_number("tickNumber", (await body()).get("tickNumber"))
        return answer({"tickData": archive.tick_data(tick)})

    @api.post("/getTransactionsForIdentity")
    async def identity_transactions() -> QuartResponse:
        return answer(archive.identity_transactions(await body()))

    @api.post("/getEventLogs")
    async def events() -> QuartResponse:
        return answer(archive.events(await body()))

    return api
