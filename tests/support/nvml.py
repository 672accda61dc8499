# SPDX-License-Identifier: Apache-2.0
"""A stand-in for NVIDIA's library, built from nvml_stub.c, and scenes that are played against it.

NVML keeps its state in the process, hence a process of its own for each scene: `python -m tests.support.nvml ROLE …`.
"""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

SOURCE = Path(__file__).with_name("nvml_stub.c")
SCENE_S = 60.0
ROOT = Path(__file__).parents[2]
Gauges = Mapping[str, int]
OWN_PID = -77
"""Stands for the scene's own process."""


def build(folder: Path) -> Path:
    """The library; every process that loads it before NVML is used gets its answers from there."""
    built = folder / "libnvidia-ml.so.1"
    command = ["cc", "-Wall", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o"]
    subprocess.run([*command, str(built), str(SOURCE)], check=True)
    return built


def write(state: Path, gauges: Gauges) -> None:
    """At once: the library reads the file at each call."""
    beside = state.with_suffix(".new")
    beside.write_text("".join(f"{name} {value}\n" for name, value in gauges.items()))
    beside.replace(state)


def load(library: str, state: str) -> None:
    os.environ["QUBIX_TEST_NVML"] = state
    if library:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)


def play(role: str, library: Path | None, folder: Path, *words: object, start: Gauges | None = None) -> Any:
    """What the scene says at its end."""
    state = folder / "gauges"
    write(state, start or {})
    command = [
        sys.executable,
        "-m",
        "tests.support.nvml",
        role,
        str(library or ""),
        str(state),
        *map(json.dumps, words),
    ]
    done = subprocess.run(command, check=False, capture_output=True, timeout=SCENE_S, cwd=ROOT)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


# The scenes ---------------------------------------------------------------------------------------------------------


def scenes(state: Path, plans: Sequence[Mapping[str, Any]]) -> list[list[dict[str, object]]]:
    """Each plan begins with a driver that was started anew: its `start`, then its `steps`, with this `toolkit`."""
    return [_scene(state, **plan) for plan in plans]


def _scene(state: Path, *, start: Gauges, steps: Sequence[Gauges], toolkit: int | None) -> list[dict[str, object]]:
    """The probe's words after each setting of the gauges."""
    from qubix_node.gpu.nvml import NvmlProbe

    write(state, start)
    told, probe = [], NvmlProbe(("cuda",), toolkit=toolkit)
    for one in steps:
        write(state, {name: os.getpid() if value == OWN_PID else value for name, value in one.items()})
        devices = probe.devices()
        samples = [_sample(probe, device.device_id) for device in devices]
        told.append({"devices": devices, "samples": samples, "after": probe.devices(), "reason": probe.reason})
        told[-1] |= {"minors": [probe.minor(one.device_id) for one in devices]}
        told[-1] |= {"pids": [probe.pids(one.device_id) for one in probe.devices()]}
        told[-1] |= {"lost": {one.device_id: probe.lost(one.device_id) for one in devices}, "unfit": dict(probe.unfit)}
    probe.close()
    return told


def _sample(probe: Any, device_id: str) -> object:
    from qubix_node.errors import NoReading

    try:
        return probe.sample(device_id)
    except NoReading as error:
        return f"NoReading: {error}"


def offers(state: Path, plans: Sequence[Sequence[Any]]) -> list[object]:
    return [_offered(state, *plan) for plan in plans]


def _offered(state: Path, choice: str, backends: Sequence[str], start: Gauges, detect_s: float = 30.0) -> object:
    """The devices that a node would offer, or why it cannot start."""
    from qubix_node.errors import NothingToOffer
    from qubix_node.gpu.detect import detected

    write(state, start)
    choose = partial(detected, choice, "12D3KooWabcdefghijkl", tuple(backends), detect_s=detect_s)
    try:
        found = trio.run(choose)
    except NothingToOffer as error:
        return str(error)
    told = [[device.kind.value, list(device.backends)] for probe in found for device in probe.devices()]
    for probe in found:
        probe.close()
    return told


def watched(state: Path, then: Gauges, silent_s: float) -> object:
    """A sampler over two cards, of which one changes its mind: which are left, which are gone and why."""
    return trio.run(_watched, state, then, silent_s)


async def _watched(state: Path, then: Gauges, silent_s: float) -> object:
    from qubix_node.gpu.nvml import NvmlProbe
    from qubix_node.gpu.sampler import Sampler

    lost, reasons = trio.Event(), []

    async def heard(device: Any, reason: str) -> None:
        reasons.append([device.device_id, reason])
        lost.set()
        await trio.lowlevel.checkpoint()

    probe = NvmlProbe(("cuda",), toolkit=13)
    sampler = Sampler([probe], heard, silent_s=silent_s)
    sampler.period_s = 0.01
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        await _until(lambda: all(sampler.latest(device.device_id) for device in sampler.devices()))
        write(state, then)
        await lost.wait()
        (left,) = [device.device_id for device in sampler.devices()]
        before = sampler.latest(left)
        await _until(lambda: sampler.latest(left) != before)
        write(state, {})
        nursery.cancel_scope.cancel()
    return {"left": left, "gone": [device.device_id for device in sampler.gone()], "reasons": reasons}


async def _until(what: Any) -> None:
    with trio.fail_after(SCENE_S / 2):
        while not what():  # noqa: ASYNC110
            await trio.sleep(0.01)


def main(role: str, library: str, state: str, *words: str) -> None:
    load(library, state)
    said = {"scenes": scenes, "offers": offers, "watched": watched}[role](Path(state), *map(json.loads, words))  # type: ignore[operator]
    sys.stdout.buffer.write(msgspec.json.encode(said))
    sys.stdout.flush()
    os._exit(0)  # a thread may hang in the library for good, as it can in a driver


if __name__ == "__main__":
    main(*sys.argv[1:])
