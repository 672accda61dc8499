# SPDX-License-Identifier: Apache-2.0
"""This machine's clock beside the coordinator's."""

from qubix_node.selftest import rules
from qubix_node.selftest.tools import Tools
from qubix_protocol.selftest import Check


async def look(tools: Tools) -> list[Check]:
    return [rules.clock(tools.offset_ms())]
