# SPDX-License-Identifier: Apache-2.0
"""All checks of one device, in the order in which a person would mend things."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from qubix_node.clock import wall_ms
from qubix_node.selftest import bandwidth, box, clock, cuda, disk, driver, kernels, memory, mesh, rates, rules
from qubix_node.selftest.tools import Tools
from qubix_protocol.selftest import CHECKS_MAX, Check, SelfTest

Look = Callable[[Tools], Awaitable[list[Check]]]
QUICK: Final[tuple[Look, ...]] = (
    driver.look,
    cuda.look,
    memory.look,
    disk.look,
    box.look,
    clock.look,
    mesh.look,
    rates.look,
)
MEASURED: Final[tuple[Look, ...]] = (bandwidth.look, kernels.look)


async def look_at(tools: Tools, *, quick: bool) -> SelfTest:
    """The kernels come last: they take longest."""
    began_ms, began_s = wall_ms(), trio.current_time()
    checks: list[Check] = []
    for look in QUICK if quick else (*QUICK, *MEASURED):
        checks += await look(tools)
    return SelfTest(
        test_id=str(uuid.uuid4()),
        device_id=tools.device.device_id,
        at_ms=began_ms,
        took_ms=round((trio.current_time() - began_s) * 1000),
        quick=quick,
        full=rules.full(checks, quick=quick),
        checks=tuple(checks[:CHECKS_MAX]),
    )
