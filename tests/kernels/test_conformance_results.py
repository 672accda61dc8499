# SPDX-License-Identifier: Apache-2.0
"""One suite for every kernel and back end: right by a float64 reference at odd sizes and bad scales, and in chunks."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from qubix_kernels import get, names
from qubix_kernels.kernel import metas_of
from tests.kernels import webgpu
from tests.kernels.card import on_cuda
from tests.kernels.conformance import subjects
from tests.kernels.conformance.world import Job, Outputs

CASES = [
    (name, backend)
    for name in names()
    for backend in get(name).spec.backends
    if name in subjects() and (backend == "cpu" or subjects()[name].simulated)
]
EDGES = [
    (name, backend, i)
    for name, backend in CASES
    for i, edge in enumerate(subjects()[name].edges)
    if backend in edge().backends
]
"""What a back end says it cannot do is tried in test_webgpu.py: it must refuse."""
Run = Callable[[str, Job], Outputs]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """On a back end; a CUDA one on a card or in Numba's simulator, a WebGPU one through Vulkan on the card there is."""
    with on_cuda() as device:

        def on(backend: str, job: Job) -> Outputs:
            if backend == "webgpu":
                webgpu.need_adapter()
            if backend == "cuda":
                return device.run(job.kernel.spec.name, job.inputs, job.params)
            return job.kernel.run(backend, job.inputs, job.params)

        yield on


def test_every_kernel_is_in_the_suite() -> None:
    """A new folder needs a module of its own in tests/kernels/conformance: its jobs, reference and cheats."""
    assert sorted(subjects()) == list(names())


def test_every_back_end_is_known_to_the_suite() -> None:
    """ "cpu" runs here, "cuda" in the simulator and "webgpu" in software, or on a card; another needs a way to run."""
    assert {backend for name in names() for backend in get(name).spec.backends} <= {"cpu", "cuda", "webgpu"}
    assert [name for name in names() if not subjects()[name].simulated] == ["onnx"]


@pytest.mark.parametrize(("name", "backend", "edge"), EDGES)
def test_agrees_with_a_float64_reference_and_is_accepted(name: str, backend: str, edge: int, run: Run) -> None:
    subject = subjects()[name]
    job = subject.edges[edge]()
    outputs = run(backend, job)
    assert metas_of(outputs) == job.kernel.output_metas(metas_of(job.inputs), job.params)
    assert subject.wrong(job, outputs) == ""
    verdict = job.verdict(outputs)
    assert verdict.accepted, verdict


@pytest.mark.parametrize(("name", "backend", "edge"), [case for case in EDGES if case[1] == "cpu"])
def test_the_reference_tells_wrong_outputs_too(name: str, backend: str, edge: int, run: Run) -> None:
    subject = subjects()[name]
    job = subject.edges[edge]()
    outputs = {key: array + np.asarray(1 + np.abs(array).max(), array.dtype) for key, array in job.run().items()}
    if name == "knn":
        outputs["indices"] = job.run()["indices"]
    assert subject.wrong(job, outputs)


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_a_job_goes_on_after_any_chunk(name: str, backend: str, run: Run) -> None:
    """From every split point on the CPU, from three elsewhere: the parts are accepted, and are the whole."""
    subject = subjects()[name]
    job = subject.edges[1]()
    whole = run(backend, job)
    cuts = range(1, job.units) if backend == "cpu" else sorted({1, job.units // 2, job.units - 1} - {0, job.units})
    for cut in cuts:
        parts = [job.part(0, cut), job.part(cut, job.units)]
        made = [run(backend, part) for part in parts]
        for part, outputs in zip(parts, made, strict=True):
            assert part.verdict(outputs, cut).accepted
        same(job.kernel.join(made), whole, backend in subject.exact)
    again = job.part(0, job.units).part(job.units - 1, job.units)
    same(run(backend, again), {key: array[-1:] for key, array in whole.items()}, backend in subject.exact)


def same(found: Outputs, whole: Outputs, exactly: bool) -> None:
    for key, wanted in whole.items():
        if exactly or wanted.dtype.kind != "f":
            np.testing.assert_array_equal(found[key], wanted)
        else:
            size = float(np.abs(wanted).max())
            np.testing.assert_allclose(found[key], wanted, rtol=1e-5, atol=1e-5 * size)
