# SPDX-License-Identifier: Apache-2.0
"""Readings of the device, which a driver may let wait."""

from contextlib import suppress
from typing import Final

import trio

from qubix_node.errors import NodeError
from qubix_node.selftest.tools import Tools
from qubix_protocol.messages import Sample

_READ_S: Final = 10.0
_PERIOD_S: Final = 0.25
_KEPT_MAX: Final = 2_000


async def reading_of(tools: Tools) -> Sample | None:
    """None when it tells nothing in time."""
    found: Sample | None = None
    with suppress(NodeError), trio.move_on_after(_READ_S):
        found = await trio.to_thread.run_sync(tools.reading, abandon_on_cancel=True)  # type: ignore[call-arg]
    return found


async def keep_reading(tools: Tools, into: list[Sample]) -> None:
    """Until cancelled."""
    while len(into) < _KEPT_MAX:
        found = await reading_of(tools)
        if found is not None:
            into.append(found)
        await trio.sleep(_PERIOD_S)
