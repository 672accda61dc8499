# SPDX-License-Identifier: Apache-2.0
"""What the device measured of itself on each kernel."""

from qubix_node import catalogue
from qubix_node.selftest import rules
from qubix_node.selftest.tools import Tools
from qubix_protocol.selftest import Check


async def look(tools: Tools) -> list[Check]:
    runs = {name: set(backends) & set(tools.device.backends) for name, (_, backends) in catalogue.kernels().items()}
    return [rules.rates(tools.rates(), runs)]
