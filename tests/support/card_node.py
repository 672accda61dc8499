# SPDX-License-Identifier: Apache-2.0
"""A real node with a stand-in card: `python -m tests.support.card_node`.

NVML answers from our own library (STUB_LIBRARY, its gauges in STUB_GAUGES), and CUDA kernels run in Numba's simulator,
which only this process can ask for: no setting and nothing on a wire can. Everything else is as on a machine with a
GPU. The simulator is slow, so examples are tiny. With STUB_SIMULATOR=0 kernels find no driver, as on a machine where
CUDA is broken.
"""

import os
from dataclasses import replace

import trio

from qubix_kernels.box.rules import Gpu
from qubix_kernels.zygote import Zygote
from qubix_node import logs
from qubix_node.daemon import serve
from qubix_node.jobs.worker import Workers
from qubix_node.rates import Plan
from qubix_node.settings import from_environment
from tests.support import nvml

QUICK = Plan(8, 8, growth=2, repeats=1, worker_runs=1, warm_up=0, enough_s=1.0, device_s=300.0)
PLANS = {"cpu": replace(QUICK, scale_first=64, scale_max=64), "cuda": QUICK}


class SimulatedWorkers(Workers):
    def _start(self, gpu: Gpu | None) -> Zygote:
        return Zygote.start(
            folders=[self.folder],
            threads=self.threads,
            isolation=self.isolation,
            gpu=gpu,
            environment={"NUMBA_ENABLE_CUDASIM": "1"},
        )


if __name__ == "__main__":
    settings = from_environment({})
    logs.configure(settings.log_level)
    nvml.load(os.environ["STUB_LIBRARY"], os.environ["STUB_GAUGES"])
    simulated = os.environ.get("STUB_SIMULATOR") != "0"
    trio.run(serve, settings, SimulatedWorkers if simulated else Workers, PLANS)
