# SPDX-License-Identifier: Apache-2.0
"""NVML as a real driver answers it, through the node's own binding."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from qubix_node.gpu.boxes import cards_of
from qubix_node.gpu.nvml import NvmlProbe
from qubix_node.gpu.toolkit import cuda_major
from qubix_protocol.messages import Device
from qubix_protocol.states import Throttle


@pytest.fixture(scope="module")
def probe() -> Iterator[NvmlProbe]:
    made = NvmlProbe(("matmul",), toolkit=cuda_major())
    yield made
    made.close()


@pytest.fixture(scope="module")
def card(probe: NvmlProbe) -> Device:
    assert probe.reason == ""
    assert probe.unfit == {}, "this card cannot be rented"
    return probe.devices()[0]


def test_the_driver_describes_the_card(card: Device) -> None:
    print(card)
    assert card.device_id.startswith("GPU-")
    assert card.model
    assert card.memory_bytes > 2**30
    assert card.cores > 0
    assert int(card.driver.split(".")[0]) >= 525
    assert int(card.cuda.split(".")[0]) >= 12
    assert tuple(map(int, card.compute_capability.split("."))) >= (7, 5)
    assert card.backends == ("matmul",)


def test_a_reading_has_what_a_consumer_sees_of_the_card(card: Device, probe: NvmlProbe) -> None:
    sample = probe.sample(card.device_id)
    print(sample)
    assert sample is not None
    assert sample.memory_total_bytes == card.memory_bytes
    assert sample.memory_used_bytes is not None
    assert 0 <= sample.memory_used_bytes <= card.memory_bytes
    assert sample.temperature_c is not None
    assert 0 < sample.temperature_c < 120
    assert sample.utilisation_pct is not None
    assert sample.power_mw
    assert sample.power_limit_mw
    assert sample.clock_mhz
    assert sample.memory_clock_mhz
    assert sample.throttle is not None
    assert Throttle.OTHER.value not in sample.throttle
    assert sample.processes is not None
    assert sample.pcie_rx_bytes_per_s is not None
    assert sample.ecc_errors in (None, 0)
    assert sample.xid is None


def test_the_card_has_its_own_device_nodes(card: Device, probe: NvmlProbe) -> None:
    gpu = cards_of([probe])[card.device_id].gpu
    print(gpu)
    assert gpu.uuid == card.device_id
    assert [node for node in gpu.nodes if not Path(node).exists()] == []
    assert probe.pids(card.device_id) is not None
