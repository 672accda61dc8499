# SPDX-License-Identifier: Apache-2.0
"""NVIDIA detection and sampling against a stand-in libnvidia-ml built from our own C file, one process a scene."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STUB_SOURCE = Path(__file__).parent.parent / "support" / "nvml_stub.c"

SCENE = """
import ctypes, json, os, sys
library, state, steps = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
os.environ["QUBIX_TEST_NVML"] = state
if library:
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
import msgspec
from qubix_node.gpu.nvml import NvmlProbe
told = []
probe = NvmlProbe(("cuda",))
for gauges in steps:
    with open(state, "w") as file:
        file.writelines(f"{name} {value}\\n" for name, value in gauges.items())
    devices = probe.devices()
    samples = [probe.sample(device.device_id) for device in devices]
    told.append({"devices": devices, "samples": samples, "after": probe.devices(), "reason": probe.reason})
probe.close()
sys.stdout.buffer.write(msgspec.json.encode(told))
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o", str(built), str(STUB_SOURCE)]
    subprocess.run(command, check=True)
    return built


def play(library: Path | None, folder: Path, *steps: dict[str, int], start: dict[str, int] | None = None) -> Any:
    """What the probe says after each step; NVML keeps its state in the process, hence a process of its own."""
    state = folder / "gauges"
    state.write_text("".join(f"{name} {value}\n" for name, value in (start or {}).items()))
    command = [sys.executable, "-c", SCENE, str(library or ""), str(state), json.dumps(list(steps))]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    return json.loads(done.stdout)


def test_cards_are_described_in_full(library: Path, tmp_path: Path) -> None:
    (scene,) = play(library, tmp_path, {})
    first, second = scene["devices"]
    assert first == {
        "device_id": "GPU-00000000-0000-0000-0000-000000000000",
        "kind": "cuda",
        "model": "Test Card 0",
        "memory_bytes": 24 << 30,
        "cores": 16384,
        "driver": "580.95.05",
        "cuda": "13.1",
        "compute_capability": "8.9",
        "backends": ["cuda"],
    }
    assert second["device_id"].endswith("1")
    assert scene["reason"] == ""


def test_samples_follow_the_gauges(library: Path, tmp_path: Path) -> None:
    before, after = play(
        library, tmp_path, {}, {"util": 93, "mem_used": 20 << 30, "temp": 77, "power_mw": 410_000, "clock_mhz": 2520}
    )
    assert before["samples"][0]["utilisation_pct"] == 7
    moved = after["samples"][0]
    told = {name: moved[name] for name in ("utilisation_pct", "memory_used_bytes", "temperature_c", "power_mw")}
    assert told == {"utilisation_pct": 93, "memory_used_bytes": 20 << 30, "temperature_c": 77, "power_mw": 410_000}
    assert moved["clock_mhz"] == 2520
    assert moved["memory_total_bytes"] == 24 << 30


def test_what_a_card_does_not_tell_is_none(library: Path, tmp_path: Path) -> None:
    (scene,) = play(library, tmp_path, {"power_mw": -1, "clock_mhz": -1, "temp": -1, "util": -1})
    sample = scene["samples"][0]
    assert [sample[name] for name in ("power_mw", "clock_mhz", "temperature_c", "utilisation_pct")] == [None] * 4
    assert sample["memory_used_bytes"] == 1 << 30


def test_a_lost_card_is_gone_and_the_other_goes_on(library: Path, tmp_path: Path) -> None:
    scene, after = play(library, tmp_path, {"lost": 0}, {})
    assert scene["samples"][0] is None
    assert scene["samples"][1]["temperature_c"] == 41
    assert [device["model"] for device in scene["after"]] == ["Test Card 1"]
    assert "Test Card 0 is lost" in scene["reason"]
    assert [device["model"] for device in after["devices"]] == ["Test Card 1"], "it stays gone"


def test_a_driver_without_cards_says_so(library: Path, tmp_path: Path) -> None:
    (scene,) = play(library, tmp_path, {}, start={"count": 0})
    assert scene["devices"] == []
    assert "sees no GPU" in scene["reason"]


def test_a_driver_that_does_not_start_is_a_reason_not_a_crash(library: Path, tmp_path: Path) -> None:
    (scene,) = play(library, tmp_path, {}, start={"init_error": 9})
    assert scene["devices"] == []
    assert "not loaded" in scene["reason"]


def test_without_a_driver_there_are_no_cards_and_a_reason(tmp_path: Path) -> None:
    """On a machine with a real driver the real cards answer instead."""
    (scene,) = play(None, tmp_path, {})
    assert bool(scene["devices"]) != bool(scene["reason"])


# What is offered ----------------------------------------------------------------------------------------------------

CHOICE = """
import ctypes, json, os, sys
library, state, choice, backends = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
os.environ["QUBIX_TEST_NVML"] = state
ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
from qubix_node.errors import NothingToOffer
from qubix_node.gpu.detect import probes
try:
    found = [d for probe in probes(choice, "12D3KooWabcdefghijkl", tuple(backends)) for d in probe.devices()]
    print(json.dumps([[d.kind.value, list(d.backends)] for d in found]))
except NothingToOffer as error:
    print(json.dumps(str(error)))
"""
CARD, BARE_CARD, CPU = ["cuda", ["cuda"]], ["cuda", []], ["cpu", ["cpu"]]


@pytest.mark.parametrize(
    ("choice", "backends", "cards", "expected"),
    [
        ("auto", ["cuda"], 1, [CARD]),
        ("auto", [], 1, [BARE_CARD, CPU]),
        ("auto", ["cuda"], 0, [CPU]),
        ("gpu", ["cuda"], 2, [CARD, CARD]),
        ("cpu", ["cuda"], 2, [CPU]),
    ],
)
def test_what_is_offered_by_the_setting(
    library: Path, tmp_path: Path, choice: str, backends: list[str], cards: int, expected: object
) -> None:
    """A card without a back end is shown and cannot be rented; then the CPU is offered beside it."""
    assert offered(library, tmp_path, choice, backends, cards) == expected


def test_wanting_a_gpu_where_there_is_none_says_what_to_do(library: Path, tmp_path: Path) -> None:
    assert "QUBIX_NODE_DEVICES=cpu" in offered(library, tmp_path, "gpu", ["cuda"], 0)


def offered(library: Path, folder: Path, choice: str, backends: list[str], cards: int) -> Any:
    state = folder / "gauges"
    state.write_text(f"count {cards}\n")
    command = [sys.executable, "-c", CHOICE, str(library), str(state), choice, json.dumps(backends)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
