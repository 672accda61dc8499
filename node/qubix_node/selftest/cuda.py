# SPDX-License-Identifier: Apache-2.0
"""The CUDA parts beside the node, and whether this card can run what they compile."""

from qubix_node.gpu.toolkit import cuda_major
from qubix_node.selftest import rules
from qubix_node.selftest.tools import Tools
from qubix_protocol.selftest import Check


async def look(tools: Tools) -> list[Check]:
    return [rules.cuda(tools.device, cuda_major())]
