# SPDX-License-Identifier: Apache-2.0
"""A real node that measures every kernel on one small example: `python -m tests.support.small_node`. However busy the
machine is, none is left out because its time was over."""

from dataclasses import replace

import trio

from qubix_node import logs
from qubix_node.daemon import serve
from qubix_node.rates import PLANS
from qubix_node.settings import from_environment

if __name__ == "__main__":
    settings = from_environment({})
    logs.configure(settings.log_level)
    plan = replace(PLANS["cpu"], scale_max=PLANS["cpu"].scale_first, repeats=1, device_s=3600.0)
    trio.run(lambda: serve(settings, plans={"cpu": plan}))
