# SPDX-License-Identifier: Apache-2.0
"""A self-test without a running node: the same checks, but those that need a session, and nothing is reported."""

import functools
from collections.abc import Sequence
from typing import Final

import httpx
import msgspec
import psutil
import trio

from qubix_kernels.box import machine as box_machine
from qubix_mesh.host import open_mesh
from qubix_mesh.peerbook import PeerBook
from qubix_mesh.port import Mesh
from qubix_node.clock import wall_ms
from qubix_node.daemon import SELFTEST_SCALE_MAX, look_for_hardware
from qubix_node.gpu import cpu
from qubix_node.gpu.device import DeviceProbe
from qubix_node.identity import load_enrolment, load_or_create_key
from qubix_node.jobs.worker import Workers
from qubix_node.measuring import Measuring
from qubix_node.rates import PLANS
from qubix_node.selftest.look import look_at
from qubix_node.selftest.rules import Way
from qubix_node.selftest.tools import Tools
from qubix_node.settings import Settings
from qubix_protocol.api import NetworkView
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Device
from qubix_protocol.selftest import SelfTest

_ASK_S: Final = 5.0
_ANSWER_BYTES_MAX: Final = 256 * 1024
_MEMORY_SHARE: Final = 0.75
_NO_SESSION: Final = "needs a running node"


async def look(settings: Settings, *, quick: bool) -> list[SelfTest]:
    """By who holds the lock of the node's folder. Raises `Fatal` or `WorkerLost`."""
    key = await trio.to_thread.run_sync(load_or_create_key, settings.key_path)
    isolation = await trio.to_thread.run_sync(box_machine.wished, settings.box, "QUBIX_NODE_BOX")
    workers = Workers(settings.threads or cpu.cores(), settings.node_dir / "scratch", isolation)
    try:
        return await _with_workers(settings, key, workers, quick)
    finally:
        await workers.close()


async def _with_workers(settings: Settings, key: SigningKey, workers: Workers, quick: bool) -> list[SelfTest]:
    measuring = await look_for_hardware(settings, key, workers, PLANS)
    gateways, offset_ms = await _network(settings)
    async with open_mesh(key.seed, listen=()) as mesh:
        await measuring.run()
        tests = []
        for probe in measuring.probes:
            for device in probe.devices():
                tools = _tools(settings, workers, measuring, mesh, probe, device, gateways, offset_ms)
                tests.append(await look_at(tools, quick=quick))
        for probe in measuring.probes:
            await trio.to_thread.run_sync(probe.close)
    return tests


def _tools(
    settings: Settings,
    workers: Workers,
    measuring: Measuring,
    mesh: Mesh,
    probe: DeviceProbe,
    device: Device,
    gateways: Sequence[str],
    offset_ms: int | None,
) -> Tools:
    return Tools(
        device=device,
        folder=settings.node_dir,
        workers=workers,
        isolation=workers.isolation,
        budget_bytes=settings.memory_bytes or int(psutil.virtual_memory().total * _MEMORY_SHARE),
        example_scale=lambda backend: min(PLANS[backend].scale_first, SELFTEST_SCALE_MAX),
        reading=functools.partial(probe.sample, device.device_id),
        rates=lambda: measuring.rates.get(device.device_id, ()),
        occupied=lambda: "",
        mesh=mesh,
        gateways=gateways,
        way=_no_way,
        offset_ms=lambda: offset_ms,
    )


async def _no_way() -> Way:
    await trio.lowlevel.checkpoint()
    return Way(problem=f"{_NO_SESSION}: start `qubix node`, then test again", applies=False)


async def _network(settings: Settings) -> tuple[list[str], int | None]:
    """Gateways to try, and the coordinator's clock less ours; None when it does not answer."""
    known = await trio.to_thread.run_sync(load_enrolment, settings.node_dir / "enrolment.json")
    named = [*settings.bootstrap, *(known.gateways if known is not None else ())]
    book, offset_ms = PeerBook(settings.node_dir / "peers.json"), None
    began_ms = wall_ms()
    view = await _view(settings.coordinator_url)
    if view is not None:
        named += view.gateways
        offset_ms = view.clock_ms - (began_ms + wall_ms()) // 2
    return list(book.to_dial(named)), offset_ms


async def _view(url: str) -> NetworkView | None:
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            response = await client.get(f"{url.rstrip('/')}/api/v1/network", timeout=_ASK_S)
            response.raise_for_status()
            return msgspec.json.decode(response.content[:_ANSWER_BYTES_MAX], type=NetworkView)
    except (httpx.HTTPError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
