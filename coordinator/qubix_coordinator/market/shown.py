# SPDX-License-Identifier: Apache-2.0
"""The market as its events have told it: what a search shows, but for the moment between a deadline and its event."""

from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

from qubix_coordinator.db.database import Tx
from qubix_coordinator.market import views
from qubix_coordinator.market.tables import Listing
from qubix_protocol.states import Availability

PAGE: Final = 500


async def pages_in(tx: Tx) -> AsyncIterator[list[Listing]]:
    """All of it, in pages by id; for one moment of it, `tx` must be repeatable read."""
    after = UUID(int=0)
    while True:
        found = Listing.filter(id__gt=after, online=True, rental_id__isnull=True)
        present = found.exclude(availability=Availability.OFFLINE.value)
        page = await present.using_db(tx).order_by("id").limit(PAGE)
        yield [row for row in page if not views.expired(row)]
        if len(page) < PAGE:
            return
        after = page[-1].id
