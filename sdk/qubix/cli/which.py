# SPDX-License-Identifier: Apache-2.0
"""A device of the market by any of its names: its listing, its own id, or its provider; an end of it is enough."""

import uuid

from qubix.client import Client
from qubix.errors import BadUsage
from qubix_protocol.api import ListingView


def offers_named(client: Client, which: str, field: str = "WHICH") -> list[ListingView]:
    """Never empty: raises `BadUsage`."""
    text = which.strip("…")
    found = [one for one in client.offers() if text and _is(one, text)]
    if not found:
        raise BadUsage(field, f"nothing in the market is called {which!r}", "Copy an id from `qubix offers search`")
    return found


def listing_named(client: Client, which: str, field: str = "WHICH") -> str:
    """The one listing that is meant. A whole id is taken as it is: its device may have left the market."""
    try:
        return str(uuid.UUID(which))
    except ValueError:
        found = offers_named(client, which, field)
    if len(found) > 1:
        raise BadUsage(
            field,
            f"{len(found)} devices are called {which!r}: {', '.join(sorted(one.device_id for one in found)[:8])}",
            "Give more of its name, or its listing's id (`qubix offers show`)",
        )
    return found[0].listing_id


def _is(one: ListingView, text: str) -> bool:
    return any(name.startswith(text) or name.endswith(text) for name in (one.listing_id, one.device_id, one.provider))
