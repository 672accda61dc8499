# SPDX-License-Identifier: Apache-2.0
"""A nursery whose one exception comes out as itself, so that callers can catch a `MeshError` by name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def plain_nursery() -> AsyncIterator[trio.Nursery]:
    """As `trio.open_nursery`; a group of several exceptions stays a group."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        found: BaseException = group
        while isinstance(found, BaseExceptionGroup) and len(found.exceptions) == 1:
            found = found.exceptions[0]
        raise found from None
