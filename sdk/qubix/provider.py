# SPDX-License-Identifier: Apache-2.0
"""A provider's devices from afar. Made by `AsyncClient.provider`."""

from typing import Final

from msgspec import UNSET, UnsetType

from qubix.session import Session
from qubix_protocol.wishes import DeviceWishBody, ProviderDevicesView, ProviderDeviceView


class AsyncProvider:
    """The devices of the account's nodes: what they do, and what their owner wants of them."""

    def __init__(self, session: Session) -> None:
        self._session: Final = session

    async def devices(self) -> ProviderDevicesView:
        return await self._session.get("/provider/devices", ProviderDevicesView)

    async def wish(
        self,
        listing_id: str,
        *,
        rate_qu_per_h: int | UnsetType | None = UNSET,
        paused: bool | UnsetType = UNSET,
        free_in_s: int | UnsetType | None = UNSET,
        why: str | UnsetType = UNSET,
    ) -> ProviderDeviceView:
        """What is left out stays as it was. A rate of None is what the node's own setting says; `free_in_s` announces
        maintenance, and None calls it off. The node carries it out: `wish.state` of the device says when it has."""
        body = DeviceWishBody(rate_qu_per_h=rate_qu_per_h, paused=paused, free_in_s=free_in_s, why=why)
        return await self._session.patch(f"/provider/devices/{listing_id}", body, ProviderDeviceView)
