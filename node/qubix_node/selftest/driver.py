# SPDX-License-Identifier: Apache-2.0
"""The card's driver."""

from qubix_node.gpu.toolkit import cuda_major
from qubix_node.selftest import rules
from qubix_node.selftest.tools import Tools
from qubix_protocol.selftest import Check


async def look(tools: Tools) -> list[Check]:
    return [rules.driver(tools.device, cuda_major())]
