# SPDX-License-Identifier: Apache-2.0
"""What is meant by a name: of a device its listing, its own id, or its provider; of a job its id. An end is enough."""

import re
import uuid
from collections.abc import Iterator
from typing import Final

import click

from qubix.client import Client
from qubix.errors import BadUsage
from qubix_protocol.api import ListingView

job_argument = click.argument("which", metavar="JOB")
"""For `job_named`."""
_PART: Final = re.compile(r"[0-9a-f-]{1,36}", re.ASCII | re.IGNORECASE)
_PAGE: Final = 200
_PAGES_MAX: Final = 10


def offers_named(client: Client, which: str, field: str = "WHICH") -> list[ListingView]:
    """Never empty: raises `BadUsage`."""
    found = [one for one in client.offers() if _is(which, one.listing_id, one.device_id, one.provider)]
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


def job_named(client: Client, which: str) -> str:
    """The id of the one job that is meant, of the account's latest ones. A whole id is taken as it is."""
    try:
        return str(uuid.UUID(which))
    except ValueError:
        if not _PART.fullmatch(which.strip("…")):
            raise BadUsage(
                "JOB", f"{which!r} is no UUID, nor an end of one", "Copy an id from `qubix job list`"
            ) from None
        found = [job_id for job_id in _latest_jobs(client) if _is(which.lower(), job_id)]
    if not found:
        raise BadUsage(
            "JOB", f"none of your latest {_PAGE * _PAGES_MAX:,} jobs is {which!r}", "Copy an id from `qubix job list`"
        )
    if len(found) > 1:
        raise BadUsage("JOB", f"{len(found)} of your jobs are {which!r}: {', '.join(found[:8])}", "Give more of its id")
    return found[0]


def _latest_jobs(client: Client) -> Iterator[str]:
    after: str | None = None
    for _ in range(_PAGES_MAX):
        page = client.jobs(after=after, limit=_PAGE)
        yield from (one.job_id for one in page.jobs)
        after = page.next
        if after is None:
            return


def _is(which: str, *names: str) -> bool:
    text = which.strip("…")
    return bool(text) and any(name.startswith(text) or name.endswith(text) for name in names)
