# SPDX-License-Identifier: Apache-2.0
"""Which gateways answer, and how soon."""

from typing import Final

import trio

from qubix_mesh.errors import MeshError, StreamClosed
from qubix_mesh.port import Mesh
from qubix_node.selftest import rules
from qubix_node.selftest.rules import Gateway
from qubix_node.selftest.tools import Tools
from qubix_protocol.selftest import Check

_GATEWAYS_MAX: Final = 4
_DIAL_S: Final = 10.0
_NOBODY_S: Final = "/qubix/round-trip/1"


async def look(tools: Tools) -> list[Check]:
    return [rules.mesh([await _reach(tools, address) for address in tools.gateways[:_GATEWAYS_MAX]])]


async def _reach(tools: Tools, address: str) -> Gateway:
    try:
        return Gateway(address, await round_trip_ms(tools.mesh, address))
    except MeshError as error:
        return Gateway(address, None, str(error) or type(error).__name__)


async def round_trip_ms(mesh: Mesh, address: str) -> float:
    """Asks for a stream that no gateway serves: the refusal is the answer. Raises `MeshError` when none comes."""
    peer = await mesh.connect(address, timeout_s=_DIAL_S)
    began_s = trio.current_time()
    try:
        stream = await mesh.open_stream(peer, _NOBODY_S, timeout_s=_DIAL_S)
    except StreamClosed:
        if peer not in mesh.connected():
            raise
    else:
        await stream.abort()
    return (trio.current_time() - began_s) * 1000
