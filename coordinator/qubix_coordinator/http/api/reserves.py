# SPDX-License-Identifier: Apache-2.0
"""Proof of reserves: for everybody the total, for each account its own part of it."""

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.deposits import reserves
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.routes import route
from qubix_protocol.reserves import ReservesProof, ReservesView


@route(api, "GET", "/reserves", answer=ReservesView, group="reserves")
async def get_reserves() -> ReservesView:
    """What is owed to all accounts together and what is on the chain, signed, and made anew now and then"""
    context = here()
    fresh_ms = context.settings.reserves_fresh_s * 1000
    return await reserves.published(context.db, context.key, context.network, context.now_ms(), fresh_ms=fresh_ms)


@route(api, "GET", "/reserves/proof", scope="user", answer=ReservesProof, group="reserves")
async def get_reserves_proof(who: Principal) -> ReservesProof:
    """Your own part of the newest published total, with the path that proves it is counted"""
    context = here()
    fresh_ms = context.settings.reserves_fresh_s * 1000
    await reserves.refresh(context.db, context.key, context.network, context.now_ms(), fresh_ms=fresh_ms)
    return await reserves.proof_of(context.db, who.account_id)
