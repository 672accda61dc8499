# SPDX-License-Identifier: Apache-2.0
"""`/devnet/v1`: what no real network has. Faucet, clock, faults, the epoch's end. Every answer names the devnet."""

from typing import Any

from quart import Blueprint
from quart.wrappers import Response as QuartResponse

from qubix_chain import identity
from qubix_chain.contracts import AMOUNT_QU_MAX
from qubix_chain.devnet.archive import Json, check_identity, check_number, check_tx_id
from qubix_chain.devnet.clock import TICK_MS_MAX, TICK_MS_MIN, Clock
from qubix_chain.devnet.errors import BadRequest
from qubix_chain.devnet.faults import ARMED_MAX, BY_TRANSACTION, Fault, fault_named, rate_of
from qubix_chain.devnet.http.edge import PREFIX, answer, body
from qubix_chain.devnet.network import JUMP_MAX, STEPS_MAX, Network
from qubix_chain.devnet.rules import POOL_WINDOW


def blueprint(network: Network, clock: Clock) -> Blueprint:
    api = Blueprint("control", __name__, url_prefix=PREFIX)

    def told(**more: Any) -> QuartResponse:
        return answer({**status_of(network, clock), **more})

    @api.get("/status")
    async def status() -> QuartResponse:
        return told()

    @api.post("/faucet")
    async def faucet() -> QuartResponse:
        given = _known(await body(), "identity", "amount")
        amount = _within("amount", given.get("amount"), 1, AMOUNT_QU_MAX)
        tx = network.pay(check_identity("identity", given.get("identity")), amount)
        return told(transaction_id=tx.id, target_tick=tx.tick, source=network.faucet_identity, amount=str(amount))

    @api.post("/clock/pause")
    async def pause() -> QuartResponse:
        _known(await body())
        clock.pause()
        return told()

    @api.post("/clock/resume")
    async def resume() -> QuartResponse:
        _known(await body())
        clock.resume()
        return told()

    @api.post("/clock/step")
    async def step() -> QuartResponse:
        given = _known(await body(), "ticks")
        return told(ticks_made=network.step(_within("ticks", given.get("ticks", 1), 1, STEPS_MAX)))

    @api.post("/clock/speed")
    async def speed() -> QuartResponse:
        given = _known(await body(), "tick_ms")
        clock.set_speed(_within("tick_ms", given.get("tick_ms"), TICK_MS_MIN, TICK_MS_MAX))
        return told()

    @api.post("/epoch")
    async def epoch() -> QuartResponse:
        given = _known(await body(), "jump", "pause")
        jump = _within("jump", given.get("jump", 0), 0, JUMP_MAX)
        network.switch_epoch(jump=jump, pause=_within("pause", given.get("pause", 0), 0, POOL_WINDOW))
        return told()

    @api.get("/faults")
    async def faults() -> QuartResponse:
        return told(kinds=[str(kind) for kind in Fault])

    @api.post("/faults")
    async def add_fault() -> QuartResponse:
        return told(**_add_fault(network, await body()))

    @api.delete("/faults")
    async def heal() -> QuartResponse:
        network.heal()
        return told()

    return api


def status_of(network: Network, clock: Clock) -> Json:
    """64-bit numbers are text, as everywhere on the network."""
    chain = network.chain
    return {
        "network": "devnet",
        "tick": chain.tick,
        "epoch": chain.epoch,
        "initial_tick": chain.initial_tick,
        "archived_tick": network.archived,
        "paused": clock.paused,
        "pause_left": chain.pause_left,
        "tick_ms": clock.tick_ms,
        "minted": str(network.minted),
        "burned": str(chain.burned),
        "supply": str(chain.supply),
        "identities": len(chain.entities),
        "pending": chain.pending,
        "dropped": {str(why): count for why, count in sorted(chain.drops.items())},
        "faults": network.faults.as_json(),
        "seed": network.faults.seed,
        "faucet": network.faucet_identity,
        "history": chain.history.hex(),
    }


def _add_fault(network: Network, given: Json) -> Json:
    """`kind` and one of `rate`, `count`, `transaction`; `archive_invents` also takes `identity` and `amount`."""
    _known(given, "kind", "rate", "count", "transaction", "identity", "amount")
    try:
        kind = fault_named(str(given.get("kind")))
        rate = rate_of(given["rate"]) if "rate" in given else None
    except ValueError as problem:
        raise BadRequest(str(problem)) from None
    chosen = [name for name in ("rate", "count", "transaction", "identity") if name in given]
    if len(chosen) > 1:
        raise BadRequest(f"{' and '.join(chosen)} exclude each other. Give one of them")
    if "transaction" in given:
        if kind not in BY_TRANSACTION:
            raise BadRequest(f"transaction: {kind} strikes no single transaction. Leave it out")
        network.lie(kind, check_tx_id("transaction", given["transaction"]))
    elif "identity" in given:
        if kind is not Fault.ARCHIVE_INVENTS:
            raise BadRequest(f"identity: {kind} is about nobody. Leave it out")
        amount = _within("amount", given.get("amount"), 1, AMOUNT_QU_MAX)
        made = network.invent(check_identity("identity", given["identity"]), amount)
        return {"transaction_id": made.id, "target_tick": made.tick, "source": identity.encode(made.source)}
    elif rate is not None:
        network.faults.rates[kind] = rate
    else:
        network.faults.armed[kind] = _within("count", given.get("count", 1), 0, ARMED_MAX)
    network.save_faults()
    return {}


def _known(given: Json, *names: str) -> Json:
    for name in given:
        if name not in names:
            raise BadRequest(f"{name[:100]}: not known here. Use {', '.join(names) or 'an empty body'}")
    return given


def _within(name: str, value: object, low: int, high: int) -> int:
    found = check_number(name, value, 64)
    if not low <= found <= high:
        raise BadRequest(f"{name}: give {low} to {high}, not {found}")
    return found
