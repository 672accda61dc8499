# SPDX-License-Identifier: Apache-2.0
"""What a browser tab may offer, and what it may be given (trust C4): always checked, never a consumer's own code."""

import dataclasses
from uuid import UUID

import numpy as np
import pytest

from qubix_coordinator.jobs.needs import plan_of
from qubix_coordinator.market import rules
from qubix_coordinator.market.rules import Candidate, Need, Obstacle, Shortfall, Way
from qubix_coordinator.settings import from_mappings
from qubix_kernels.kernel import metas_of
from qubix_kernels.onnx import sample
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.messages import Device, KernelRate
from qubix_protocol.settings import SettingsError
from qubix_protocol.states import Availability, DeviceKind

GIB = 1024**3
NEED = Need(kernel="matmul", backends=("webgpu",), flops=1e9, bytes_moved=1e6, memory_bytes=GIB, browsers=True)
TAB = Candidate(
    listing_id=UUID(int=1),
    peer_id="tab",
    device_id="webgpu-1",
    model="A GPU",
    memory_bytes=8 * GIB,
    backends=("webgpu",),
    rate_qu_per_h=3_600,
    availability=Availability.AVAILABLE,
    rates=(KernelRate(kernel="matmul", backend="webgpu", flops_per_s=1e9, bytes_per_s=1e9),),
    jobs_parallel=1,
    jobs_rejected=0,
    failures=0,
    backoff_until_ms=0,
    offer_digest=bytes(32),
    browser=True,
)


def gpu(kind: DeviceKind = DeviceKind.WEBGPU, model: str = "A GPU", driver: str = "", fallback: bool = False) -> Device:
    backends = (kind.value,)
    return Device(
        device_id="d", kind=kind, model=model, memory_bytes=GIB, driver=driver, backends=backends, fallback=fallback
    )


def test_a_tab_gets_checked_work_alone() -> None:
    assert isinstance(rules.choose([TAB], NEED, {}, 0), rules.Choice)
    unchecked = dataclasses.replace(NEED, browsers=False)
    found = rules.choose([TAB], unchecked, {}, 0)
    assert isinstance(found, Shortfall)
    assert Obstacle.BROWSER.value in found.detail
    native = dataclasses.replace(TAB, browser=False)
    assert isinstance(rules.choose([native], unchecked, {}, 0), rules.Choice)


def test_it_is_told_why_it_does_not_get_the_rest() -> None:
    _, misfits = rules.sorted_out([TAB], dataclasses.replace(NEED, browsers=False))
    assert [one.obstacle for one in misfits] == [Obstacle.BROWSER]


FORMS = {
    "knn": ({"queries": ArrayMeta("float32", (4, 8)), "data": ArrayMeta("float32", (16, 8))}, {"k": 2}),
    "mandelbrot": ({}, {"width": 8, "height": 8}),
    "matmul": ({"a": ArrayMeta("float32", (4, 8)), "b": ArrayMeta("float32", (8, 4))}, {}),
}


@pytest.mark.parametrize("kernel", sorted(FORMS))
def test_the_markets_own_checked_kernels_may_run_in_a_tab(kernel: str) -> None:
    metas, params = FORMS[kernel]
    assert plan_of(kernel, params, metas).need().browsers


def test_a_consumers_own_model_never_runs_in_a_tab() -> None:
    arrays, params = sample.example(np.random.default_rng(1), 4)
    need = plan_of("onnx", params, metas_of(arrays)).need()
    assert not need.browsers
    rate = KernelRate(kernel="onnx", backend=need.backends[0], flops_per_s=1e9, bytes_per_s=1e9)
    able = dataclasses.replace(TAB, backends=need.backends, rates=(rate,))
    found = rules.sorted_out([able], need)[1]
    assert [one.obstacle for one in found] == [Obstacle.BROWSER]


@pytest.mark.parametrize("kind", [DeviceKind.CPU, DeviceKind.CUDA])
def test_a_tab_offers_webgpu_alone(kind: DeviceKind) -> None:
    found = rules.unwelcome(gpu(kind), Way(browser=True))
    assert found is not None
    assert kind.value in found.problem
    assert found.remedy
    assert rules.unwelcome(gpu(kind), Way()) is None


@pytest.mark.parametrize(
    "device",
    [gpu(fallback=True), gpu(model="Google SwiftShader"), gpu(model="llvmpipe (LLVM 15)"), gpu(driver="lavapipe")],
    ids=["its own word", "SwiftShader", "llvmpipe", "lavapipe"],
)
@pytest.mark.parametrize("browser", [True, False])
def test_software_is_no_gpu_but_on_a_test_market(device: Device, browser: bool) -> None:
    assert rules.software(device)
    assert rules.unwelcome(device, Way(browser=browser)) is not None
    assert rules.unwelcome(device, Way(browser=browser, fallbacks=True)) is None


def test_a_gpu_is_welcome_from_a_tab_and_from_a_node() -> None:
    assert rules.unwelcome(gpu(), Way(browser=True)) is None
    assert rules.unwelcome(gpu(), Way()) is None


def test_software_is_never_listed_on_the_main_network() -> None:
    with pytest.raises(SettingsError, match="QUBIX_ALLOW_FALLBACK_ADAPTERS"):
        from_mappings({"QUBIX_ALLOW_FALLBACK_ADAPTERS": "true", "QUBIX_NETWORK": "main"}, {})
    assert from_mappings(
        {"QUBIX_ALLOW_FALLBACK_ADAPTERS": "true", "QUBIX_NETWORK": "devnet"}, {}
    ).allow_fallback_adapters
    assert not from_mappings({}, {}).allow_fallback_adapters
