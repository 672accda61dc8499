# SPDX-License-Identifier: Apache-2.0
"""What both WebSockets share."""

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, NoReturn

from quart import websocket

if TYPE_CHECKING:
    from qubix_coordinator.http.context import Context

_CLOSE_S: Final = 1.0
_REASON_BYTES_MAX: Final = 123
GOING_AWAY: Final = 1012


class Stopping(Exception):
    """This process stops; whoever is connected comes back to another, or later."""


async def until_closing(context: "Context") -> NoReturn:
    await context.closing.wait()
    raise Stopping


async def close(code: int, reason: str) -> None:
    """Says goodbye, but does not wait for a peer that reads nothing, nor minds one that is gone."""
    short = reason.encode()[:_REASON_BYTES_MAX].decode(errors="ignore")
    with contextlib.suppress(OSError):
        async with asyncio.timeout(_CLOSE_S):
            await websocket.close(code, short)
