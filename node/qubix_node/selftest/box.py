# SPDX-License-Identifier: Apache-2.0
"""What stands between a job and this machine; that a box can be made was tried for real when the node started."""

from qubix_node.selftest import rules
from qubix_node.selftest.tools import Tools
from qubix_protocol.selftest import Check


async def look(tools: Tools) -> list[Check]:
    return [rules.box(tools.isolation.kind, tools.isolation.reason)]
