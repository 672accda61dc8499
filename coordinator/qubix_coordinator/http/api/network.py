# SPDX-License-Identifier: Apache-2.0
"""What a node or client pins, and a node's enrolment."""

from quart import request

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.errors import InvalidInput
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.openapi import Signed
from qubix_coordinator.http.problems import WrongMedia
from qubix_coordinator.http.routes import route
from qubix_protocol import envelope
from qubix_protocol.api import EnrolView, NetworkView
from qubix_protocol.keys import peer_id
from qubix_protocol.messages import Enrol
from qubix_protocol.units import FRAME_BYTES_MAX, PROTOCOL_VERSION


@route(api, "GET", "/network", answer=NetworkView, group="network")
async def get_network() -> NetworkView:
    """Which network this is, and the key that signs for it"""
    context = here()
    return NetworkView(
        network=context.network,
        coordinator_key=context.key.public.hex(),
        protocol_version=PROTOCOL_VERSION,
        fee_bps=context.settings.fee_bps,
        gateways=await context.mesh.gateway_addresses(),
        regions=context.settings.regions,
        relays=context.mesh.relays(),
        clock_ms=context.now_ms(),
        fallback_adapters=context.settings.allow_fallback_adapters,
        walletconnect_project_id=context.settings.walletconnect_project_id,
    )


@route(api, "POST", "/nodes/enrol", body=Signed, answer=EnrolView, status=201, group="network")
async def enrol_node() -> EnrolView:
    """Make a node known by its signed statement; a second time changes nothing"""
    context = here()
    if request.mimetype != Signed.media:
        raise WrongMedia("Content-Type", f"{request.mimetype[:100]!r} is not taken here", f"Send {Signed.media}")
    raw = await request.get_data()
    assert isinstance(raw, bytes)
    opened = envelope.open_envelope(
        raw, network=context.network, audience=context.key.public, now_ms=context.now_ms(), limit_bytes=FRAME_BYTES_MAX
    )
    if opened.header.audience == envelope.ANYONE:
        raise InvalidInput("audience", "the statement is not addressed to this coordinator", "Name its key as audience")
    opened.body(Enrol)
    # Enrolling again changes nothing, so a replay does no harm and a repeat after a lost answer works.
    peer = peer_id(opened.header.sender)
    node = await context.db.run(lambda tx: accounts.ensure_node(tx, peer))
    return EnrolView(
        peer_id=peer,
        account_id=str(node.account_id),
        network=context.network,
        coordinator_key=context.key.public.hex(),
        gateways=await context.mesh.gateway_addresses(),
        region=context.settings.regions[0],
    )
