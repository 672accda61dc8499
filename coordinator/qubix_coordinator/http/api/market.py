# SPDX-License-Identifier: Apache-2.0
"""What can be run, and who offers to run it."""

import msgspec

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.routes import route
from qubix_coordinator.market import service as market
from qubix_kernels import get, names
from qubix_protocol.api import KernelsView, ListingView, OffersView
from qubix_protocol.messages import Name, Peer
from qubix_protocol.states import DeviceKind


class OffersQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of what is given must hold."""

    kind: DeviceKind | None = None
    backend: Name | None = None
    provider: Peer | None = None

    def keeps(self, listing: ListingView) -> bool:
        return (
            self.kind in (None, listing.kind)
            and self.backend in (None, *listing.backends)
            and self.provider in (None, listing.provider)
        )


@route(api, "GET", "/kernels", answer=KernelsView, group="market")
async def list_kernels() -> KernelsView:
    """Every kernel with its parameters, arrays and bounds"""
    return KernelsView(kernels=tuple(msgspec.to_builtins(get(name).spec) for name in names()))


@route(api, "GET", "/offers", scope="user", query=OffersQuery, answer=OffersView, group="market")
async def list_offers(who: Principal, query: OffersQuery) -> OffersView:
    """The market now, and the cursor from which the live feed goes on"""
    context = here()
    cursor = await context.notifier.position()
    found = await market.listings(context.db, now_ms=context.now_ms())
    return OffersView(offers=tuple(listing for listing in found if query.keeps(listing)), cursor=str(cursor))
