# SPDX-License-Identifier: Apache-2.0
"""A card that Vulkan drives, the whole way through the market: found, measured, offered as WebGPU, assigned, run by
shaders in its box, checked, paid. Mesa's software driver stands in for it, which one setting of a test allows.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from qubix_kernels.box.machine import found_here
from qubix_protocol.states import AttemptState, DeviceKind, Isolation
from tests.e2e.test_main_job import audit, client, matrices, settled, until
from tests.kernels.webgpu import need_adapter
from tests.support.market import Market

ALLOWED = {"QUBIX_ALLOW_FALLBACK_ADAPTERS": "yes"}


@pytest.fixture
def liberal(folder: Path) -> Iterator[Market]:
    """A market that lists software, marked as such."""
    with Market(folder, **ALLOWED) as running:
        yield running


def test_a_job_runs_through_webgpu_and_is_paid(liberal: Market) -> None:
    need_adapter()
    liberal.start_node("graphics", "tests.support.graphics_node", QUBIX_NODE_DEVICES="gpu")
    with client(liberal) as api:
        until(lambda: [one.backends for one in api.offers()] == [("webgpu",)])
        (found,) = api.offers()
        assert (found.kind, found.backends, found.fallback) == (DeviceKind.WEBGPU, ("webgpu",), True)
        assert found.isolation is Isolation(found_here().kind)
        assert "Vulkan, software" in found.driver
        assert found.metrics is None or found.metrics.temperature_c is None, "nothing is told that is not known"

        a, b = matrices(96)
        jobs = [
            api.submit("matmul", a=a, b=b, cap_qu=500_000),
            api.submit("mandelbrot", width=200, height=100, max_iterations=300, pixel=0.02, cap_qu=500_000),
        ]
        np.testing.assert_allclose(jobs[0].result()["c"], a @ b, rtol=1e-3, atol=1e-3)
        assert jobs[1].result()["iterations"].max() == 300
        for job in jobs:
            view = job.refresh()
            settled(view)
            assert view.paid_qu >= 1
            (attempt,) = view.attempts
            assert (attempt.backend, attempt.state) == ("webgpu", AttemptState.ACCEPTED)
            assert attempt.listing_id == found.listing_id
    audit(liberal)
