# SPDX-License-Identifier: Apache-2.0
"""How much of the device's memory is free."""

from qubix_node.selftest import rules
from qubix_node.selftest.reading import reading_of
from qubix_node.selftest.tools import Tools
from qubix_protocol.selftest import Check


async def look(tools: Tools) -> list[Check]:
    return [rules.memory(tools.device, await reading_of(tools), tools.budget_bytes)]
