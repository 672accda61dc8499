# SPDX-License-Identifier: Apache-2.0
"""The native worker's installer, and what a node may ask about itself."""

import base64

from quart import Response, request

from qubix_coordinator.accounts import pairings
from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.db.database import Tx
from qubix_coordinator.http import worker_files
from qubix_coordinator.http.api import api
from qubix_coordinator.http.api.pairings import made
from qubix_coordinator.http.context import here
from qubix_coordinator.http.openapi import Signed
from qubix_coordinator.http.rates import asker_of
from qubix_coordinator.http.routes import as_response, route
from qubix_coordinator.http.signed import opened_here
from qubix_coordinator.ledger import read
from qubix_coordinator.workers.installer import Terms, installer
from qubix_protocol.keys import peer_id
from qubix_protocol.pairing import fingerprint
from qubix_protocol.worker import InstallerBody, InstallerView, NodeAsk, NodeSelfView


@route(
    api,
    "POST",
    "/worker/installer",
    scope="user",
    body=InstallerBody,
    answer=InstallerView,
    status=201,
    group="pairing",
)
async def make_installer(who: Principal, body: InstallerBody) -> Response:
    """One file that makes a machine a worker of yours, with a fresh pairing code in it"""
    context = here()
    shelf = await worker_files.shelf(context)
    pairing = await made(who, f"worker for {body.system}")
    terms = Terms(
        coordinator=context.url.rstrip("/"),
        coordinator_key=context.key.public.hex(),
        code=pairing.code,
        python=worker_files.PYTHON,
    )
    name, content = installer(body.system, shelf.manifest, terms)
    view = InstallerView(name=name, content_base64=base64.b64encode(content).decode(), pairing=pairing.pairing)
    answer = as_response(view, 201)
    answer.headers["Cache-Control"] = "no-store"
    return answer


@route(api, "POST", "/nodes/self", body=Signed, answer=NodeSelfView, group="network")
async def tell_node() -> NodeSelfView:
    """What the market knows of the node that signed this: whether it is paired, and its devices"""
    context = here()
    opened = await opened_here()
    opened.body(NodeAsk)
    sender = opened.header.sender
    peer = peer_id(sender)
    context.doors.pairing_brought(asker_of(request.remote_addr), peer, context.clock.monotonic_s())

    async def step(tx: Tx) -> NodeSelfView:
        owned = await pairings.standing(tx, sender)
        balance_qu = 0 if owned.own is None else (await read.balance(tx, owned.own)).available_qu
        return NodeSelfView(
            fingerprint=fingerprint(sender),
            paired=owned.owner not in (None, owned.own),
            own_balance_qu=balance_qu,
            devices=owned.devices,
        )

    return await context.db.run(step)
