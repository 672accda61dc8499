# SPDX-License-Identifier: Apache-2.0
"""A real node that measures itself for a moment only: `python -m tests.support.quick_node`. Where no job runs, its
rates are of no account."""

from dataclasses import replace

import trio

from qubix_node import logs
from qubix_node.daemon import serve
from qubix_node.rates import PLANS
from qubix_node.settings import from_environment

if __name__ == "__main__":
    settings = from_environment({})
    logs.configure(settings.log_level)
    trio.run(lambda: serve(settings, plans={"cpu": replace(PLANS["cpu"], enough_s=0.2, device_s=0.5)}))
