# SPDX-License-Identifier: Apache-2.0
"""No false alarm in 300 seeded runs of each kernel, whichever honest back end made the result."""

from collections.abc import Iterator

import numpy as np
import pytest

from qubix_kernels import get, names
from tests.kernels import webgpu
from tests.kernels.card import on_cuda
from tests.kernels.conformance import subjects
from tests.kernels.conformance.world import Job
from tests.kernels.simulator import Simulator

RUNS = 300
DEAR = {"onnx": 100}
"""How many of the runs are daily, where each takes long; the others are slow tests."""
SIMULATED_RUNS = 6
ON_CUDA = [name for name in names() if "cuda" in get(name).spec.backends and subjects()[name].simulated]
ON_WEBGPU = [name for name in names() if "webgpu" in get(name).spec.backends]


@pytest.fixture(scope="module")
def device() -> Iterator[Simulator]:
    with on_cuda() as started:
        yield started


@pytest.mark.parametrize("name", names())
def test_no_honest_result_is_flagged(name: str) -> None:
    assert flagged(name, range(DEAR.get(name, RUNS))) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DEAR))
def test_no_honest_result_is_flagged_in_three_hundred_runs(name: str) -> None:
    assert flagged(name, range(DEAR[name], RUNS)) == []


def flagged(name: str, seeds: range) -> list[object]:
    """Verdicts that are not "accepted" on results of the CPU back end, and of other ways to compute in turn."""
    subject, found = subjects()[name], list[object]()
    ways = [Job.run, *subject.elsewhere]
    for seed in seeds:
        rng = np.random.default_rng(seed)
        job = subject.random(rng)
        verdict = job.verdict(ways[seed % len(ways)](job), int(rng.integers(1 << 30)))
        if not verdict.accepted:
            found.append((seed, verdict))
    return found


def flagged_on_cuda(device: Simulator, name: str, seeds: range) -> list[object]:
    """Verdicts on results of the CUDA back end that are not "accepted". A card takes whole jobs, the simulator small
    ones."""
    subject, flagged = subjects()[name], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        job = subject.random(rng)
        if not device.is_card:
            job = subject.edges[seed % len(subject.edges)]() if seed % 2 else _small(job)
        outputs = device.run(name, job.inputs, job.params)
        verdict = job.verdict(outputs, int(rng.integers(1 << 30)))
        if not verdict.accepted:
            flagged.append((seed, verdict))
    return flagged


@pytest.mark.parametrize("name", ON_WEBGPU)
def test_no_result_of_a_webgpu_back_end_is_flagged(name: str) -> None:
    """Of all 300: a software card takes a second for them."""
    webgpu.need_adapter()
    subject, flagged = subjects()[name], []
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        job = subject.random(rng)
        if "webgpu" in job.backends:
            verdict = job.verdict(job.kernel.run("webgpu", job.inputs, job.params), int(rng.integers(1 << 30)))
            if not verdict.accepted:
                flagged.append((seed, verdict))
    assert flagged == []


def _small(job: Job) -> Job:
    """The first units of it, few enough for the simulator."""
    return job.part(0, min(job.units, 3))


@pytest.mark.parametrize("name", ON_CUDA)
def test_no_result_of_a_cuda_back_end_is_flagged(name: str, device: Simulator) -> None:
    """On a card of all 300 at once."""
    assert flagged_on_cuda(device, name, range(RUNS if device.is_card else SIMULATED_RUNS)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_CUDA)
def test_no_result_of_a_cuda_back_end_is_flagged_in_three_hundred_runs(name: str, device: Simulator) -> None:
    assert flagged_on_cuda(device, name, range(SIMULATED_RUNS, SIMULATED_RUNS + RUNS)) == []
