# SPDX-License-Identifier: Apache-2.0
"""`/live/v1`: what a node of the network says now."""

import base64
import binascii
from typing import Final

from quart import Blueprint
from quart.wrappers import Response as QuartResponse

from qubix_chain import identity
from qubix_chain.contracts import QUTIL, SEND_TO_MANY_FEE_QU
from qubix_chain.devnet.archive import check_identity, check_number
from qubix_chain.devnet.clock import Clock
from qubix_chain.devnet.errors import BadRequest, Missing
from qubix_chain.devnet.http.edge import answer, body
from qubix_chain.devnet.network import PEERS, Network

_SEND_TO_MANY_FEE: Final = 1
"""QUTIL's function GetSendToManyV1Fee."""


def blueprint(network: Network, clock: Clock) -> Blueprint:
    api = Blueprint("live", __name__, url_prefix="/live/v1")

    @api.get("/tick-info")
    async def tick_info() -> QuartResponse:
        chain = network.chain
        duration_s = round(clock.tick_ms / 1000)
        told = {"tick": chain.tick, "duration": duration_s, "epoch": chain.epoch, "initialTick": chain.initial_tick}
        return answer({"tickInfo": told})

    @api.get("/balances/<who>")
    async def balance(who: str) -> QuartResponse:
        key = check_identity("identity", who)
        found = network.entity(key)
        told = {
            "id": identity.encode(key),
            "balance": str(found.balance),
            "validForTick": network.chain.tick,
            "latestIncomingTransferTick": found.incoming_tick,
            "latestOutgoingTransferTick": found.outgoing_tick,
            "incomingAmount": str(found.incoming),
            "outgoingAmount": str(found.outgoing),
            "numberOfIncomingTransfers": found.incoming_count,
            "numberOfOutgoingTransfers": found.outgoing_count,
        }
        return answer({"balance": told})

    @api.post("/broadcast-transaction")
    async def broadcast() -> QuartResponse:
        given = (await body()).get("encodedTransaction")
        tx_id = network.broadcast(_base64("encodedTransaction", given))
        return answer({"peersBroadcasted": PEERS, "encodedTransaction": given, "transactionId": tx_id})

    @api.post("/querySmartContract")
    async def query_contract() -> QuartResponse:
        given = await body()
        contract = check_number("contractIndex", given.get("contractIndex"))
        function = check_number("inputType", given.get("inputType"), 16)
        data = _base64("requestData", given.get("requestData", ""))
        if check_number("inputSize", given.get("inputSize", 0)) != len(data):
            raise BadRequest("inputSize is not the size of requestData")
        if (contract, function) != (QUTIL, _SEND_TO_MANY_FEE):
            raise Missing(
                f"the devnet runs no function {function} of contract {contract}: only QUTIL's GetSendToManyV1Fee"
            )
        fee = SEND_TO_MANY_FEE_QU.to_bytes(8, "little")
        return answer({"responseData": base64.b64encode(fee).decode("ascii")})

    return api


def _base64(name: str, given: object) -> bytes:
    try:
        return base64.b64decode(given if isinstance(given, str) else "?", validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(f"{name}: not base64") from None
