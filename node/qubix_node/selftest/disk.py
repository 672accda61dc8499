# SPDX-License-Identifier: Apache-2.0
"""Room for inputs and results."""

import shutil

import trio

from qubix_node.selftest import rules
from qubix_node.selftest.tools import Tools
from qubix_protocol.selftest import Check


async def look(tools: Tools) -> list[Check]:
    usage = await trio.to_thread.run_sync(shutil.disk_usage, tools.folder)
    return [rules.disk(usage.free)]
