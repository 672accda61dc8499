# SPDX-License-Identifier: Apache-2.0
"""The composition root: the parts of a node, wired, and one nursery that owns all their tasks."""

import base64
import json
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import psutil
import trio

from qubix_mesh.errors import MeshError
from qubix_mesh.port import Mesh
from qubix_node import catalogue, key_log
from qubix_node.clock import wall_ms
from qubix_node.courier import Courier, Post
from qubix_node.errors import NotLinked, Unreachable
from qubix_node.gpu.device import DeviceProbe
from qubix_node.gpu.sampler import Sampler
from qubix_node.identity import Enrolment, Incarnations
from qubix_node.jobs.cache import InputCache
from qubix_node.jobs.desk import Desk
from qubix_node.jobs.journal import Journal
from qubix_node.jobs.outbox import Outbox
from qubix_node.jobs.rules import Facts
from qubix_node.jobs.runner import Limits, Runner
from qubix_node.jobs.store import ArtifactStore
from qubix_node.jobs.store_http import Authorise
from qubix_node.jobs.worker import Workers
from qubix_node.link import Link, Live
from qubix_node.neighbours import Neighbours
from qubix_node.offers import rules as offer_rules
from qubix_node.offers.price import LOOK_S, Price
from qubix_node.offers.publish import Publisher
from qubix_node.offers.wishes import Wishes
from qubix_node.rentals.desk import Rentals
from qubix_node.rentals.maintenance import Maintenance
from qubix_node.selftest.asked import Asked
from qubix_node.selftest.bandwidth import Measure
from qubix_node.selftest.desk import SelfTests
from qubix_node.selftest.rules import Way
from qubix_node.selftest.tools import Tools
from qubix_node.settings import Settings
from qubix_node.trials.desk import Trials
from qubix_node.voice import KeptVoice, Pins
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import ArtifactRequest, Assign, Device, Hello, Host, KernelRate, Message
from qubix_protocol.selftest import ProbeRequest
from qubix_protocol.states import DeviceKind, Isolation

log = logging.getLogger("qubix_node")
_DRAINED_S: Final = 0.5
_FAREWELL_S: Final = 5.0
"""A coordinator that hears it answers at once; it may be a busy machine on which it does, and here too."""
_LAST_WORD_S: Final = 0.2
_PROBE_CLOSE_S: Final = 2.0
_GATEWAYS_S: Final = 60.0
_PASS_S: Final = 30.0
_DISK_SHARE: Final = 0.9
_MEMORY_SHARE: Final = 0.75
_WAY_S: Final = 180.0
"""For so long the way to the store is what it was: it is the same for all devices, and takes others' room."""
_SCALES: Final = {"cpu": 64, "cuda": 256, "webgpu": 256}

Refresh = Callable[[Enrolment], Awaitable[Enrolment]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What is known before the node goes to market."""

    key: SigningKey
    host: Host
    enrolment: Enrolment
    rates: Mapping[str, tuple[KernelRate, ...]]
    """Of each device, by its id; more may come while the node runs."""
    probes: tuple[DeviceProbe, ...]
    scales: Mapping[str, int] = field(default_factory=lambda: dict(_SCALES))
    """Of the examples that a self-test computes, by back end."""


class Node:
    """`store` makes the artifact store from what signs its requests; `refresh` asks for the gateways of now; `post`
    brings a statement by HTTPS; `way` measures the way to the store (None: this node has none)."""

    def __init__(
        self,
        settings: Settings,
        machine: Machine,
        mesh: Mesh,
        workers: Workers,
        *,
        store: Callable[[Authorise], ArtifactStore],
        refresh: Refresh,
        post: Post,
        way: Measure | None = None,
    ) -> None:
        self._way, self._last_way, self._way_s = way, Way(), -_WAY_S
        self._settings, self._machine, self._mesh, self._refresh = settings, machine, mesh, refresh
        self._workers = workers
        self._enrolment = machine.enrolment
        self._price = Price(settings.node_dir, settings.rate_qu_per_h)
        self._journal = Journal.open(settings.node_dir / "journal")
        self.outbox = Outbox(self._unanswered)
        self.sampler = Sampler(machine.probes, self._device_lost, busy=self._busy)
        pins = Pins(machine.key, settings.network, self._enrolment.key)
        kept = KeptVoice(settings.node_dir / "certificate.json", pins)
        self.publisher = Publisher(mesh, settings.network, self._offer_states, kept)
        self.desk = Desk(self._journal, self.outbox, self._runner(workers, store), self._facts, self._changed)
        self.wishes = Wishes(
            settings.node_dir,
            say=self.outbox.say,
            devices=self._device_ids,
            local=lambda: self._price.word,
            rate=self._rate,
            changed=self._changed,
        )
        self.rentals = Rentals(
            say=self.outbox.say,
            devices=self._device_ids,
            changed=self._changed,
            maintenance=Maintenance(settings.node_dir),
            rate_qu_per_h=self._rate,
            wishes=self.wishes,
        )
        self.selftests = SelfTests(
            tools=self._tools,
            devices=self.sampler.devices,
            measured=lambda device_id: device_id in machine.rates,
            offered=self.publisher.first,
            asked=Asked(settings.node_dir),
        )
        self._neighbours = Neighbours(
            mesh,
            settings,
            machine.enrolment,
            linked=lambda: self.link.linked,
            clock_ms=lambda: self.link.coordinator_ms() if self.publisher.region else None,
            region=lambda: self.publisher.region,
        )
        self.trials = Trials(workers, say=self.outbox.say, occupied=self._occupied, budget_bytes=self._budget_bytes())
        incarnations = Incarnations(settings.node_dir / "incarnation")
        self.link = self._make_link(pins, incarnations)
        self.courier = Courier(
            post,
            pins,
            incarnations,
            self.outbox,
            linked=lambda: self.link.linked,
            clock_ms=lambda: self.link.coordinator_ms(),
            heard=self.desk.command,
        )
        workers.faulty = self.sampler.condemn

    def _runner(self, workers: Workers, store: Callable[[Authorise], ArtifactStore]) -> Runner:
        settings, real = self._settings, store(self._authorise)
        return Runner(
            workers=workers,
            store=real,
            cache=InputCache(settings.node_dir / "cache", real, settings.cache_bytes),
            journal=self._journal,
            outbox=self.outbox,
            limits=Limits(memory_bytes=self._budget_bytes(), threads=workers.threads),
        )

    def _budget_bytes(self) -> int:
        """What one worker may use."""
        return self._settings.memory_bytes or int(psutil.virtual_memory().total * _MEMORY_SHARE)

    def _make_link(self, pins: Pins, incarnations: Incarnations) -> Link:
        return Link(
            self._mesh,
            pins,
            incarnations,
            addresses=self._addresses,
            hello=self._hello,
            commands=self._command,
            tasks=(
                self.desk.heartbeat,
                self.outbox.run,
                self.sampler.send,
                self._begin_offers,
                self.rentals.attend,
                self.selftests.report,
            ),
            met=self._neighbours.met,
            agreed=key_log.writer(self._settings.key_log),
        )

    async def run(self, stop: trio.Event) -> None:
        """Until `stop`, and then until the farewell is said."""
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.desk.run)
                nursery.start_soon(self.sampler.run)
                nursery.start_soon(self._workers.tidy)
                nursery.start_soon(self.link.run)
                nursery.start_soon(self.selftests.run)
                nursery.start_soon(self.trials.run)
                nursery.start_soon(self.courier.run)
                nursery.start_soon(self.publisher.run)
                nursery.start_soon(self._neighbours.run)
                nursery.start_soon(self._watch_price)
                nursery.start_soon(self.wishes.run)
                nursery.start_soon(self._keep_up_with_gateways)
                nursery.start_soon(self._tell_ready)
                nursery.start_soon(self._leave_once_drained, stop)
                await stop.wait()
                with trio.move_on_after(_FAREWELL_S):
                    await self._farewell()
                nursery.cancel_scope.cancel()
        finally:
            self._journal.close()
            await self._close_probes()

    async def _leave_once_drained(self, stop: trio.Event) -> None:
        while not (self.rentals.may_leave and self.desk.idle):  # noqa: ASYNC110 - a file says it, and nobody waits
            await trio.sleep(_DRAINED_S)
        log.info("node.drained")
        stop.set()

    async def _close_probes(self) -> None:
        """A driver that hangs does not hold up the end."""
        with trio.CancelScope(deadline=trio.current_time() + _PROBE_CLOSE_S, shield=True):
            for probe in self._machine.probes:
                await trio.to_thread.run_sync(probe.close, abandon_on_cancel=True)  # type: ignore[call-arg]

    async def _tell_ready(self) -> None:
        """Once, when the first offer is out: that is after the first welcome."""
        await self.publisher.first.wait()
        found = self.sampler.devices()
        devices, titles = [one.device_id for one in found], [one.kind.titled(one.model) for one in found]
        log.info("node.ready", extra={"devices": ", ".join(titles), "region": self.publisher.region})
        ready = {"process": "node", "pid": os.getpid(), "peer_id": self._machine.key.peer_id}
        ready |= {"devices": devices, "titles": titles}
        if self._settings.ready_fd is not None:
            with os.fdopen(self._settings.ready_fd, "w") as pipe:
                pipe.write(json.dumps(ready) + "\n")

    async def _farewell(self) -> None:
        """To the market, to renters, and of what runs: none waits for another, and what is of money for its answer."""
        async with trio.open_nursery() as nursery:
            with suppress(NotLinked):
                live = await self.link.live(0)
                nursery.start_soon(self.desk.drain)
                nursery.start_soon(self.rentals.drain, live.session.coordinator_ms())
            await self._leave_market()
        await trio.sleep(_LAST_WORD_S)

    async def _leave_market(self) -> None:
        try:
            await self.publisher.farewell()
        except MeshError as error:
            log.debug("node.no_farewell", extra={"reason": str(error)})

    # What the parts ask of each other -------------------------------------------------------------------------------

    async def _command(self, message: Message) -> None:
        if not any(desk.command(message) for desk in (self.trials, self.rentals, self.selftests, self.wishes)):
            await self.desk.command(message)

    def _device_ids(self) -> frozenset[str]:
        return frozenset(device.device_id for device in self.sampler.devices())

    def _rate(self, device_id: str) -> int:
        """What its owner said last, from afar or here."""
        wished = self.wishes.rate_of(device_id)
        return self._price.qu_per_h if wished is None else wished

    def _changed(self) -> None:
        self.publisher.changed()

    def _busy(self, device_id: str) -> bool:
        return bool(self.desk.busy(device_id)) or self._workers.using(device_id)

    def _parallel(self, device: Device | None) -> int:
        """A card has one consumer at a time (trust B2), whatever the setting."""
        return self._settings.jobs_parallel if device is None or device.kind is DeviceKind.CPU else 1

    async def _device_lost(self, device: Device, reason: str) -> None:
        """Off the market, and what runs there is given up at once: it goes on elsewhere."""
        self.publisher.changed()
        await self.rentals.device_lost(device.device_id, reason)
        await self.desk.device_lost(device.device_id, reason)

    async def _unanswered(self, attempt_id: str) -> None:
        await self.desk.unanswered(attempt_id)

    def _hello(self, nonce: bytes, exchange: bytes) -> Hello:
        return Hello(
            nonce=nonce,
            exchange=exchange,
            clock_ms=wall_ms(),
            host=self._machine.host,
            attempts=self.desk.live_attempts(),
            rentals=self.rentals.held(),
            region=self._settings.region or self._enrolment.region,
        )

    async def _addresses(self, failures: int) -> Sequence[str]:
        """Settings first, then the coordinator's list (asked for again after a round without luck), then memory."""
        if failures:
            await self._go_on_without()
            try:
                await self._refresh_enrolment()
            except Unreachable as error:
                log.debug("link.no_news_of_gateways", extra={"reason": str(error)})
        return self._neighbours.gateways(self._enrolment.gateways)

    async def _go_on_without(self) -> None:
        """No gateway could be reached: what is for rent here is told to neighbours all the same."""
        voice = await self.publisher.go_on()
        if voice is not None and not self.link.linked:
            self.link.coordinator_ms = voice.clock_ms
            self._neighbours.moved()

    async def _keep_up_with_gateways(self) -> None:
        """While somebody tells of them: with the coordinator away it is too late to ask who else there is."""
        while True:
            await trio.sleep(_GATEWAYS_S)
            with suppress(Unreachable):
                await self._refresh_enrolment()

    async def _refresh_enrolment(self) -> None:
        self._enrolment = await self._refresh(self._enrolment)
        self._neighbours.learn(self._enrolment.relays)

    async def _begin_offers(self, live: Live) -> None:
        before = self.publisher.region
        await self.publisher.begin(live)
        if before != self.publisher.region:
            self._neighbours.moved()

    async def _watch_price(self) -> None:
        while True:
            if await trio.to_thread.run_sync(self._price.look):
                log.info("node.rate", extra={"qu_per_h": self._price.qu_per_h})
                self._changed()
            await trio.sleep(LOOK_S)

    async def _authorise(self, request: ArtifactRequest | ProbeRequest) -> tuple[str, str]:
        live = await self.link.live(_PASS_S)
        token = base64.b64encode(live.session.seal_pass(request)).decode()
        return live.welcome.artifact_url, f"Qubix {token}"

    def _tools(self, device: Device) -> Tools:
        """What a self-test of the device works with."""
        return Tools(
            device=device,
            folder=self._settings.node_dir,
            workers=self._workers,
            isolation=self._workers.isolation,
            budget_bytes=self._budget_bytes(),
            example_scale=lambda backend: self._machine.scales.get(backend, _SCALES["cpu"]),
            reading=partial(self.sampler.latest, device.device_id),
            rates=lambda: self._machine.rates.get(device.device_id, ()),
            occupied=partial(self._occupied, device.device_id),
            mesh=self._mesh,
            gateways=self._neighbours.gateways(self._enrolment.gateways),
            way=self._measured_way,
            offset_ms=lambda: self.link.coordinator_ms() - wall_ms() if self.link.linked else None,
        )

    def _occupied(self, device_id: str) -> str:
        """Why no kernel of a self-test may run there now."""
        if self.rentals.rental_of(device_id) is not None:
            return "the device is rented"
        return "a job runs on the device" if self.desk.busy(device_id) else ""

    async def _measured_way(self) -> Way:
        if self._way is None:
            return Way(problem="this node has no way to a store", applies=False)
        if trio.current_time() < self._way_s + _WAY_S:
            return self._last_way
        way = await self._way(self._authorise)
        if not way.problem:
            self._last_way, self._way_s = way, trio.current_time()
        return way

    def _offer_states(self, region: str) -> list[offer_rules.State]:
        return [
            *(self._state(device, region, gone=False) for device in self.sampler.devices()),
            *(self._state(device, region, gone=True) for device in self.sampler.gone()),
        ]

    def _state(self, device: Device, region: str, *, gone: bool) -> offer_rules.State:
        return offer_rules.State(
            device=device,
            rate_qu_per_h=self._rate(device.device_id),
            region=region,
            rates=self._machine.rates.get(device.device_id, ()),
            jobs_parallel=self._parallel(device),
            isolation=Isolation(self._workers.isolation.kind),
            busy=self.desk.busy(device.device_id),
            draining=self.desk.draining,
            gone=gone,
            sample=self.sampler.latest(device.device_id),
            machine=self._around(),
            rented=self.rentals.rental_of(device.device_id) is not None,
            closing=self.rentals.closing(device.device_id),
        )

    def _around(self) -> offer_rules.Machine:
        settings, host = self._settings, self._machine.host
        free = shutil.disk_usage(settings.node_dir).free * _DISK_SHARE
        return offer_rules.Machine(
            cpu_cores=host.cpu_cores,
            memory_bytes=host.memory_bytes,
            disk_free_bytes=offer_rules.rounded(min(free, settings.disk_bytes)),
            inet_down_bytes_per_s=int(self._last_way.down),
            inet_up_bytes_per_s=int(self._last_way.up),
            notice_s=settings.notice_s,
            country=settings.country,
            relays_at=self._neighbours.relays_at,
        )

    def _facts(self, assign: Assign, desk: Desk) -> Facts:
        free = shutil.disk_usage(self._settings.node_dir).free * _DISK_SHARE
        room = self._settings.disk_bytes - sum(map(catalogue.disk_bytes, desk.active()))
        devices = {device.device_id: device for device in self.sampler.devices()}
        return Facts(
            devices=self.sampler.devices(),
            kernels=catalogue.kernels(),
            rate_qu_per_h=self._rate(assign.device_id),
            jobs_parallel=self._parallel(devices.get(assign.device_id)),
            busy=desk.busy(assign.device_id),
            fence_max=desk.fence_max(assign.job_id),
            draining=desk.draining,
            bad_form=catalogue.problems(assign) if assign.kernel in catalogue.kernels() else "",
            need_disk_bytes=catalogue.disk_bytes(assign),
            free_disk_bytes=int(min(free, room)),
            need_memory_bytes=catalogue.memory_bytes(assign),
            free_memory_bytes=self.sampler.free_memory_bytes(assign.device_id),
            rental=self.rentals.rental_of(assign.device_id),
            closing=self.rentals.closing(assign.device_id),
        )
