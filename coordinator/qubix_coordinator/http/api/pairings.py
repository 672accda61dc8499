# SPDX-License-Identifier: Apache-2.0
"""Pairing codes: made and confirmed by a person, brought by a node (trust A2)."""

from uuid import UUID

from quart import Response, request

from qubix_coordinator.accounts import pairings
from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import Conflict, NotFound
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.openapi import Signed
from qubix_coordinator.http.rates import asker_of
from qubix_coordinator.http.routes import as_response, route
from qubix_coordinator.http.signed import opened_here
from qubix_protocol.keys import peer_id
from qubix_protocol.pairing import (
    ConfirmBody,
    NodePairingView,
    Pair,
    PairingBody,
    PairingMadeView,
    PairingsView,
    PairingView,
)


@route(api, "POST", "/pairings", scope="user", body=PairingBody, answer=PairingMadeView, status=201, group="pairing")
async def make_pairing(who: Principal, body: PairingBody) -> Response:
    """A code for one node: it serves once, within ten minutes, and counts when its fingerprint is confirmed"""
    answer = as_response(await made(who, body.name), 201)
    answer.headers["Cache-Control"] = "no-store"
    return answer


async def made(who: Principal, name: str) -> PairingMadeView:
    """Raises LimitExceeded."""
    context = here()
    context.doors.pairing_made(str(who.account_id), context.clock.monotonic_s())
    code, view = await context.db.run(lambda tx: pairings.make(tx, who.account_id, name, now_ms=context.now_ms()))
    return PairingMadeView(code=code, pairing=view)


@route(api, "GET", "/pairings", scope="user", answer=PairingsView, group="pairing")
async def list_pairings(who: Principal) -> PairingsView:
    """Your pairings, newest first"""
    return PairingsView(pairings=tuple(await here().db.run(lambda tx: pairings.views(tx, who.account_id))))


@route(api, "GET", "/pairings/<uuid:pairing_id>", scope="user", answer=PairingView, group="pairing")
async def get_pairing(who: Principal, pairing_id: UUID) -> PairingView:
    """How far it is: waiting, seen, confirmed; and the node's devices in the market"""
    return await here().db.run(lambda tx: pairings.view(tx, who.account_id, pairing_id))


@route(
    api,
    "POST",
    "/pairings/<uuid:pairing_id>/confirm",
    scope="user",
    body=ConfirmBody,
    answer=PairingView,
    group="pairing",
)
async def confirm_pairing(who: Principal, pairing_id: UUID, body: ConfirmBody) -> PairingView:
    """The node that brought the code shows this fingerprint: it is yours from now on, and so is what it earns"""
    context = here()

    async def step(tx: Tx) -> PairingView | Conflict:
        now_ms = context.now_ms()
        return await pairings.confirm(tx, who.account_id, pairing_id, body.fingerprint, now_ms=now_ms)

    return _settled(await context.db.run(step))


@route(api, "DELETE", "/pairings/<uuid:pairing_id>", scope="user", answer=PairingView, group="pairing")
async def refuse_pairing(who: Principal, pairing_id: UUID) -> PairingView:
    """Take a code back, or refuse the node that brought it"""
    context = here()
    return await context.db.run(lambda tx: pairings.refuse(tx, who.account_id, pairing_id, now_ms=context.now_ms()))


@route(api, "POST", "/nodes/pair", body=Signed, answer=NodePairingView, group="network")
async def pair_node() -> NodePairingView:
    """A node brings a pairing code, signed by its key; the same node may ask again, and hears how far it is"""
    context, opened = here(), await opened_here()
    body, peer = opened.body(Pair), peer_id(opened.header.sender)
    address, now_s = asker_of(request.remote_addr), context.clock.monotonic_s()
    context.doors.pairing_brought(address, peer, now_s)

    async def step(tx: Tx) -> PairingView | Conflict:
        return await pairings.brought(tx, peer, body.code, now_ms=context.now_ms())

    try:
        view = _settled(await context.db.run(step))
    except NotFound:
        context.doors.pairing_guessed(address, now_s)
        raise
    return NodePairingView(state=view.state, fingerprint=view.fingerprint, due_ms=view.due_ms, devices=view.devices)


def _settled(outcome: PairingView | Conflict) -> PairingView:
    if isinstance(outcome, Conflict):
        raise outcome
    return outcome
