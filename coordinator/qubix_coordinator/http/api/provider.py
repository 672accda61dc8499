# SPDX-License-Identifier: Apache-2.0
"""A provider's devices: what they do, and what their owner wants of them."""

from uuid import UUID

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.routes import route
from qubix_coordinator.wishes import read
from qubix_coordinator.wishes import service as wishes
from qubix_protocol.wishes import DeviceWishBody, ProviderDevicesView, ProviderDeviceView


@route(api, "GET", "/provider/devices", scope="user", answer=ProviderDevicesView, group="provider")
async def list_provider_devices(who: Principal) -> ProviderDevicesView:
    """The devices of your nodes: what runs there, what you wanted of them, and what is to be mended"""
    context = here()
    return await read.devices(context.db, who, now_ms=context.now_ms())


@route(
    api,
    "PATCH",
    "/provider/devices/<uuid:listing_id>",
    scope="user",
    body=DeviceWishBody,
    answer=ProviderDeviceView,
    status=202,
    group="provider",
)
async def wish_of_device(who: Principal, body: DeviceWishBody, listing_id: UUID) -> ProviderDeviceView:
    """Set a device's price, pause it, or say when it must be free; its node carries it out and says so in `wish`"""
    context = here()
    await wishes.wish(context.db, who, listing_id, body, now_ms=context.now_ms())
    context.mesh.nudge()
    return await read.device(context.db, who, listing_id, now_ms=context.now_ms())
