# SPDX-License-Identifier: Apache-2.0
"""What is known of a device's fitness."""

from uuid import UUID

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.routes import route
from qubix_coordinator.trials import read, selftests
from qubix_protocol.selftest import SelfTestBody, SelfTestView
from qubix_protocol.trials import TrialsView


@route(
    api,
    "POST",
    "/offers/<uuid:listing_id>/selftest",
    scope="user",
    body=SelfTestBody,
    answer=SelfTestView,
    status=202,
    group="market",
)
async def ask_selftest(who: Principal, body: SelfTestBody, listing_id: UUID) -> SelfTestView:
    """Ask your node to test this device now; the answer is what was known before"""
    context = here()
    found = await selftests.ask(context.db, who, listing_id, quick=body.quick, now_ms=context.now_ms())
    context.mesh.nudge()
    return found


@route(
    api, "GET", "/offers/<uuid:listing_id>/selftest", scope="user", visitors=True, answer=SelfTestView, group="market"
)
async def read_selftest(who: Principal | None, listing_id: UUID) -> SelfTestView:
    """The device's last self-test, check by check, with its time: a claim of its node"""
    context = here()
    return await selftests.view(context.db, listing_id, now_ms=context.now_ms())


@route(api, "GET", "/offers/<uuid:listing_id>/trials", scope="user", visitors=True, answer=TrialsView, group="market")
async def list_trials(who: Principal | None, listing_id: UUID) -> TrialsView:
    """What the market tried of this device itself, newest first: how fast it was, and how much memory it held"""
    return await read.trials(here().db, listing_id)
