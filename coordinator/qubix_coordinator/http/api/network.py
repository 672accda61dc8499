# SPDX-License-Identifier: Apache-2.0
"""What a node or client pins, and a node's enrolment."""

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.openapi import Signed
from qubix_coordinator.http.routes import route
from qubix_coordinator.http.signed import opened_here
from qubix_coordinator.settings import WALLETCONNECT_MAIN
from qubix_protocol.api import EnrolView, NetworkView
from qubix_protocol.keys import peer_id
from qubix_protocol.messages import Enrol
from qubix_protocol.units import PROTOCOL_VERSION


@route(api, "GET", "/network", answer=NetworkView, group="network")
async def get_network() -> NetworkView:
    """Which network this is, and the key that signs for it"""
    context = here()
    settings = context.settings
    return NetworkView(
        network=context.network,
        coordinator_key=context.key.public.hex(),
        protocol_version=PROTOCOL_VERSION,
        fee_bps=settings.fee_bps,
        gateways=await context.mesh.gateway_addresses(),
        regions=settings.regions,
        relays=context.mesh.relays(),
        clock_ms=context.now_ms(),
        fallback_adapters=settings.allow_fallback_adapters,
        walletconnect_project_id=settings.walletconnect_project_id,
        walletconnect_relay=settings.walletconnect_relay,
        walletconnect_chain=settings.walletconnect_chain,
        # A wallet would pay real QU to an identity of a development network.
        walletconnect_pays=context.network == "main" or settings.walletconnect_chain != WALLETCONNECT_MAIN,
    )


@route(api, "POST", "/nodes/enrol", body=Signed, answer=EnrolView, status=201, group="network")
async def enrol_node() -> EnrolView:
    """Make a node known by its signed statement; a second time changes nothing"""
    context = here()
    opened = await opened_here()
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
