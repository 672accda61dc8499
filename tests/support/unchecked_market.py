# SPDX-License-Identifier: Apache-2.0
"""The market's real processes with `orbit` registered in each: `python -m tests.support.unchecked_market PART`."""

import asyncio
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import trio

from qubix_coordinator import __main__ as coordinator
from qubix_coordinator.jobs import verify_process
from qubix_coordinator.jobs.verify_settings import from_environment_or_exit
from qubix_kernels.box.rules import Gpu
from qubix_kernels.zygote import Zygote
from qubix_node import logs
from qubix_node.daemon import serve
from qubix_node.jobs.worker import Workers
from qubix_node.settings import from_environment
from tests.support.market import Market, Process
from tests.support.own import unchecked

MODULE = "tests.support.unchecked_market"
SEEN: dict[str, Any] = {"readable": [unchecked.FOLDER], "environment": {"PYTHONPATH": str(unchecked.FOLDER)}}


class UncheckedMarket(Market):
    def start_coordinator(self) -> Process:
        self.env["QUBIX_HTTP_PORT"] = self.port_of("coordinator")
        process = self.start("coordinator", MODULE, "coordinator")
        self.env["QUBIX_COORDINATOR_URL"] = str(process.info["url"])
        return process

    def start_verifier(self, name: str = "verifier") -> Process:
        return self.start(name, MODULE, "verifier")

    def start_node(self, name: str = "node", module: str = MODULE, *args: str, **env: str) -> Process:
        return super().start_node(name, module, *(args or ("node",)), **env)


class UncheckedWorkers(Workers):
    def _start(self, gpu: Gpu | None) -> Zygote:
        how = "unchecked:serve_wrong" if "WRONG" in os.environ else "unchecked:serve"
        return Zygote.start(
            folders=[self.folder], threads=self.threads, isolation=self.isolation, gpu=gpu, serve=how, **SEEN
        )


def main(part: str) -> None:
    unchecked.install()
    sys.argv = sys.argv[:1]
    if part == "coordinator":
        raise SystemExit(coordinator.main())
    if part == "verifier":
        start = partial(Zygote.start, serve="unchecked:serve", **SEEN)
        asyncio.run(verify_process.serve(from_environment_or_exit(), start))
        return
    settings = from_environment({})
    logs.configure(settings.log_level)
    trio.run(serve, settings, UncheckedWorkers)


if __name__ == "__main__":
    assert Path(unchecked.FOLDER).is_dir()
    main(sys.argv[1])
