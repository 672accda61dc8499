# SPDX-License-Identifier: Apache-2.0
"""The market of jobs_world with jobs of `orbit`, which has no verifier: what is made of them waits for acceptance."""

from typing import Any

from qubix_protocol.api import InputBody, JobBody, JobView
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.messages import KernelRate
from tests.db.jobs_world import CAP, FORECAST_MS, UNITS, Node, World

META = ArrayMeta("float64", (UNITS,))
STEPS = 1_000
RATES = (
    KernelRate(kernel="orbit", backend="cpu", flops_per_s=3.0 * UNITS * STEPS / FORECAST_MS * 1000, bytes_per_s=1e12),
)
WINDOW_S = 86_400.0
OWED = 10_000
"""For a whole job: 1 QU a millisecond."""


class UncheckedWorld(World):
    async def open(self, credit_qu: int = 1_000_000) -> "UncheckedWorld":
        await super().open(credit_qu)
        await self.store(*self.input_of("x", META), META)
        return self

    async def node(self, **changes: Any) -> Node:
        return await super().node(**({"rates": RATES} | changes))

    def body(self, **changes: Any) -> JobBody:
        digest, size = self.input_of("x", META)
        inputs = {"x": InputBody(digest=digest.hex(), size_bytes=size, meta=META)}
        plain: dict[str, Any] = {"kernel": "orbit", "inputs": inputs, "params": {"steps": STEPS}}
        return JobBody(**(plain | {"cap_qu": CAP, "spread": 1} | changes))

    async def delivered(self, node: Node, **changes: Any) -> JobView:
        view = await self.assigned(**changes)
        await node.whole_job()
        await self.check()
        return await self.job(view.job_id)
