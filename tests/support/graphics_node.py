# SPDX-License-Identifier: Apache-2.0
"""A real node whose cards are measured on tiny examples: `python -m tests.support.graphics_node`. Mesa's software
driver takes seconds for those that a card does in none."""

import trio

from qubix_node import logs
from qubix_node.daemon import serve
from qubix_node.jobs.worker import Workers
from qubix_node.rates import Plan
from qubix_node.settings import from_environment

PLANS = {"webgpu": Plan(128, 128, growth=2, repeats=1, worker_runs=2, warm_up=1, enough_s=1.0, device_s=600.0)}


if __name__ == "__main__":
    settings = from_environment({})
    logs.configure(settings.log_level)
    trio.run(serve, settings, Workers, PLANS)
