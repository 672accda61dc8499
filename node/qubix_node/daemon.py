# SPDX-License-Identifier: Apache-2.0
"""The process around the node: lock, key, signals, preparation, and the real mesh."""

import logging
import signal
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import trio

from qubix_kernels.box import machine as box_machine
from qubix_kernels.box.machine import Isolation
from qubix_mesh.host import open_mesh
from qubix_node import catalogue, files, pairing
from qubix_node.barriers import hold
from qubix_node.courier import post
from qubix_node.enrol import Enroller
from qubix_node.errors import NoBox
from qubix_node.gpu import cpu
from qubix_node.gpu.boxes import cards_of
from qubix_node.gpu.cpu import CpuProbe
from qubix_node.gpu.detect import detected
from qubix_node.gpu.device import DeviceProbe
from qubix_node.identity import load_or_create_key
from qubix_node.jobs.store_http import HttpStore
from qubix_node.jobs.worker import Workers
from qubix_node.measuring import Measuring, devices_of
from qubix_node.node import Machine, Node
from qubix_node.rates import PLANS, Plan
from qubix_node.selftest import bandwidth
from qubix_node.settings import Settings
from qubix_protocol import barriers
from qubix_protocol.keys import SigningKey
from qubix_protocol.pairing import fingerprint
from qubix_protocol.states import DeviceKind

log = logging.getLogger("qubix_node")
AGENT: Final = "qubix-node/0.1"
SELFTEST_SCALE_MAX: Final = 256
_CONNECTIONS: Final = httpx.Limits(max_connections=8, max_keepalive_connections=4)
MakeWorkers = Callable[[int, Path, Isolation], Workers]
Detect = Callable[[str, str, tuple[str, ...]], Awaitable[list[DeviceProbe]]]


async def serve(
    settings: Settings,
    make_workers: MakeWorkers = Workers,
    plans: Mapping[str, Plan] = PLANS,
    detect: Detect | None = None,
) -> None:
    """Until SIGTERM or SIGINT. `plans` say how much is measured, `detect` finds the hardware, in tests. Raises `Fatal`,
    inside an exception group once tasks run."""
    if settings.barriers is not None:
        barriers.install(partial(hold, settings.barriers))
    with files.locked(settings.node_dir):
        key = await trio.to_thread.run_sync(load_or_create_key, settings.key_path)
        named = {"peer": key.peer_id, "fingerprint": fingerprint(key.public)}
        log.info("node.start", extra={**named, "network": settings.network})
        isolation = await trio.to_thread.run_sync(_isolation, settings.box)
        workers = make_workers(settings.threads or cpu.cores(), settings.node_dir / "scratch", isolation)
        try:
            async with httpx.AsyncClient(limits=_CONNECTIONS, trust_env=False) as client:
                await _until_stopped(settings, key, client, workers, plans, detect)
        finally:
            await workers.close()
    log.info("node.stopped")


async def _until_stopped(
    settings: Settings,
    key: SigningKey,
    client: httpx.AsyncClient,
    workers: Workers,
    plans: Mapping[str, Plan],
    detect: Detect | None,
) -> None:
    stop = trio.Event()
    path = settings.node_dir / "enrolment.json"
    enroller = Enroller(
        client, settings.coordinator_url, key, cpu.host(AGENT), settings.network, path, settings.coordinator_key
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_signals, stop)
        measuring = await look_for_hardware(settings, key, workers, plans, detect)
        nursery.start_soon(measuring.run)
        scales = {backend: min(plan.scale_first, SELFTEST_SCALE_MAX) for backend, plan in plans.items()}
        machine = await _prepare(key, enroller, measuring, stop, scales)
        if machine is not None:
            if settings.pairing_code:
                ask = partial(pairing.bring, enroller, settings.pairing_code)
                nursery.start_soon(pairing.follow, ask, key)
            async with open_mesh(key.seed, listen=settings.listen) as mesh:
                node = Node(
                    settings,
                    machine,
                    mesh,
                    workers,
                    store=lambda authorise: HttpStore(client, authorise),
                    refresh=enroller.refreshed,
                    post=partial(post, client, settings.coordinator_url),
                    way=partial(bandwidth.measured, client),
                )
                measuring.changed = node.publisher.changed
                await node.run(stop)
        nursery.cancel_scope.cancel()


async def look_for_hardware(
    settings: Settings,
    key: SigningKey,
    workers: Workers,
    plans: Mapping[str, Plan],
    detect: Detect | None = None,
) -> Measuring:
    """What hardware there is. Where no kernel runs on any card and the choice is ours, the CPU is taken instead. Raises
    `NothingToOffer`."""
    if detect is None:
        others, software = catalogue.webgpu_backends(), settings.allow_fallback_adapters
        detect = partial(detected, webgpu_backends=others, software=software)
    found = await detect(settings.devices, key.peer_id, catalogue.cuda_backends())
    workers.cards = await trio.to_thread.run_sync(cards_of, found)
    with_cpu = any(device.kind is DeviceKind.CPU for device in devices_of(found))
    spare = partial(CpuProbe, key.peer_id) if settings.devices == "auto" and not with_cpu else None
    return Measuring(workers, settings.node_dir, found, plans, spare)


async def _prepare(
    key: SigningKey, enroller: Enroller, measuring: Measuring, stop: trio.Event, scales: Mapping[str, int]
) -> Machine | None:
    """The first rates and the enrolment, at the same time; None when told to stop meanwhile. Raises `Fatal`."""
    machine: list[Machine] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when, stop, nursery.cancel_scope)
        async with trio.open_nursery() as preparing:
            preparing.start_soon(measuring.until_enough)
            enrolment = await enroller.enrolled()
        probes = tuple(measuring.probes)
        machine.append(
            Machine(
                key=key,
                host=cpu.host(AGENT),
                enrolment=enrolment,
                rates=measuring.rates,
                probes=probes,
                scales=scales,
            )
        )
        nursery.cancel_scope.cancel()
    return machine[0] if machine else None


def _isolation(wish: str) -> Isolation:
    """Raises `NoBox`."""
    try:
        return box_machine.wished(wish, "QUBIX_NODE_BOX")
    except box_machine.NoBox as problem:
        raise NoBox(str(problem)) from None


async def _watch_signals(stop: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("node.stopping", extra={"signal": signal.Signals(number).name})
            stop.set()


async def _cancel_when(stop: trio.Event, scope: trio.CancelScope) -> None:
    await stop.wait()
    scope.cancel()
