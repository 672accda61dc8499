# SPDX-License-Identifier: Apache-2.0
"""30 real libp2p nodes, each saying one advert every 10 s and hearing everybody else's: what arrives, how late, and
what a delivery costs, beside py-libp2p as it comes (with Noise, Yamux and the same heartbeat) carrying the same bytes.

Ours judges every advert: certificate, signature, order, expiry. The stock library verifies its own signatures, as ours
does too, and believes the rest. Each runs in a process of its own, in one event loop, over loopback.
"""

import json
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import trio

from bench.figures import Figure, beside, percentile, under

NODES = 30
PERIOD_S = 10.0
DIALS = 3
MEASURE_S = 40.0
SETTLE_S = 8.0
DRAIN_S = 3.0
DEADLINE_S = 300.0
TOPIC_REGION = "local"
Say = Callable[[int], Awaitable[None]]
"""Publishes one advert of the node with this number."""


class Tally:
    """What was said and heard while measuring."""

    def __init__(self) -> None:
        self.measuring = False
        self.said: dict[tuple[int, int], float] = {}
        self.late_s: list[float] = []

    def say(self, node: int, number: int) -> None:
        if self.measuring:
            self.said[node, number] = time.perf_counter()

    def hear(self, listener: int, node: int, number: int) -> None:
        """One's own words come by, too: they are no delivery."""
        if listener == node:
            return
        began = self.said.get((node, number))
        if began is not None:
            self.late_s.append(time.perf_counter() - began)


def run() -> list[Figure]:
    ours, stock = _measured("ours"), _measured("stock")
    expected, heard = ours["said"] * (NODES - 1), ours["heard"]
    lost = under(
        f"adverts lost, {NODES} nodes",
        100 * (1 - heard / expected),
        "%",
        aim=0.0,
        note=f"{heard} of {expected}; stock {stock['heard']} of {stock['said'] * (NODES - 1)}",
    )
    late = under(
        f"advert to a listener, {NODES} nodes, p99",
        ours["p99_ms"],
        "ms",
        aim=500.0,
        note=f"p50 {ours['p50_ms']:.0f} ms; stock p50 {stock['p50_ms']:.0f}, p99 {stock['p99_ms']:.0f} ms",
    )
    cost = beside(
        "CPU of a delivered advert",
        ours["cpu_ms"],
        "ms",
        limit=stock["cpu_ms"],
        limit_name="stock py-libp2p, nothing judged",
        at_most=1.0,
        note=f"the rest of both: idle {ours['idle']:.0%} of a core, stock {stock['idle']:.0%}",
    )
    return [lost, late, cost]


def _measured(which: str) -> dict[str, Any]:
    """In a process of its own, so that neither changes the other."""
    command = [sys.executable, "-m", "bench.adverts_bench", which]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=DEADLINE_S)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


async def _measure(tally: Tally, say: Say) -> dict[str, Any]:
    """`say` works, and everybody is connected with somebody."""
    await trio.sleep(SETTLE_S)
    idle = await _cpu_share(5.0)
    async with trio.open_nursery() as nursery:
        for node in range(NODES):
            nursery.start_soon(_speak, say, node)
        await trio.sleep(PERIOD_S)
        tally.measuring = True
        began_cpu, began = time.process_time(), time.perf_counter()
        await trio.sleep(MEASURE_S)
        tally.measuring = False
        cpu_s, wall_s = time.process_time() - began_cpu, time.perf_counter() - began
        nursery.cancel_scope.cancel()
    await trio.sleep(DRAIN_S)
    late = tally.late_s
    return {
        "said": len(tally.said),
        "heard": len(late),
        "p50_ms": percentile(late, 0.5) * 1000,
        "p99_ms": percentile(late, 0.99) * 1000,
        "cpu_ms": max(0.0, cpu_s - idle * wall_s) * 1000 / max(1, len(late)),
        "idle": idle,
    }


async def _cpu_share(seconds: float) -> float:
    """Of one core, with nobody saying anything."""
    cpu, began = time.process_time(), time.perf_counter()
    await trio.sleep(seconds)
    return (time.process_time() - cpu) / (time.perf_counter() - began)


async def _speak(say: Say, node: int) -> None:
    """Nodes that started together do not speak together."""
    await trio.sleep(PERIOD_S * random.random())
    while True:
        await say(node)
        await trio.sleep(PERIOD_S * (0.9 + 0.2 * random.random()))


def _neighbours(number: int, chance: random.Random) -> list[int]:
    return chance.sample(range(number), min(number, DIALS))


# Ours ---------------------------------------------------------------------------------------------------------------


async def _ours() -> dict[str, Any]:
    from qubix_mesh.adverts import Adverts, Heard
    from qubix_mesh.host import open_mesh
    from qubix_protocol.units import offers_topic

    world = Signed()
    tally, chance = Tally(), random.Random(1)
    topic = offers_topic("devnet", TOPIC_REGION)
    peers: dict[str, int] = {key.peer_id: number for number, key in enumerate(world.keys)}

    def take(listener: int, heard: Heard) -> None:
        tally.hear(listener, peers[heard.peer_id], heard.sequence[1])

    async with AsyncExitStack() as stack:
        meshes: list[Any] = [await stack.enter_async_context(open_mesh(key.seed)) for key in world.keys]
        for number, mesh in enumerate(meshes):
            adverts = Adverts(
                network="devnet",
                coordinator=world.coordinator.public,
                steady_s=trio.current_time,
                clock_ms=world.clock_ms,
            )
            accepts = adverts.validator(topic, partial(take, number))
            await stack.enter_async_context(mesh.subscribe(topic, accepts, capacity=4))
        for number, mesh in enumerate(meshes):
            for other in _neighbours(number, chance):
                await mesh.connect(meshes[other].addresses[0], timeout_s=10)

        async def say(node: int) -> None:
            counter, data = world.advert(node)
            tally.say(node, counter)
            await meshes[node].publish(topic, data)

        return await _measure(tally, say)


class Signed:
    """A coordinator's word for each node, and adverts of a card with all its gauges."""

    def __init__(self) -> None:
        from qubix_protocol.envelope import ANYONE, seal
        from qubix_protocol.keys import SigningKey
        from qubix_protocol.messages import Certificate

        self.coordinator = SigningKey(b"c" * 32)
        self.keys = [SigningKey(bytes([number + 1]) * 32) for number in range(NODES)]
        self.counters = [0] * NODES
        self.certificates = [
            seal(
                Certificate(peer_id=key.peer_id, region=TOPIC_REGION, expires_ms=self.clock_ms() + 86_400_000),
                self.coordinator,
                network="devnet",
                audience=ANYONE,
                incarnation=1,
                counter=0,
                expires_ms=0,
            )
            for key in self.keys
        ]

    def clock_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def advert(self, node: int) -> tuple[int, bytes]:
        from qubix_protocol.adverts import encode_advert
        from qubix_protocol.envelope import ANYONE, seal
        from qubix_protocol.units import OFFER_LIFE_MS

        self.counters[node] += 1
        sealed = seal(
            _offer(self.counters[node]),
            self.keys[node],
            network="devnet",
            audience=ANYONE,
            incarnation=1,
            counter=self.counters[node],
            expires_ms=self.clock_ms() + OFFER_LIFE_MS,
        )
        return self.counters[node], encode_advert(self.certificates[node], sealed)


def _offer(number: int) -> Any:
    from qubix_protocol.messages import Device, KernelRate, Offer, Sample
    from qubix_protocol.states import Availability, DeviceKind

    device = Device(
        device_id="GPU-3f2c0b1a-0000-1111-2222-333344445555",
        kind=DeviceKind.CUDA,
        model="NVIDIA H100 80GB HBM3",
        memory_bytes=80 << 30,
        driver="580.65.06",
        cuda="13.0",
        compute_capability="9.0",
        backends=("cuda",),
    )
    names = ("matmul", "knn", "mandelbrot", "montecarlo_option", "onnx")
    return Offer(
        device=device,
        rate_qu_per_h=100_000 + number,
        region=TOPIC_REGION,
        availability=Availability.AVAILABLE,
        rates=tuple(KernelRate(kernel=name, backend="cuda", flops_per_s=3e13, bytes_per_s=2e12) for name in names),
        metrics=Sample(at_ms=number, utilisation_pct=50.0, memory_used_bytes=1 << 33, temperature_c=60.0, power_mw=4),
    )


# The library as it comes ---------------------------------------------------------------------------------------------


async def _stock() -> dict[str, Any]:
    from libp2p.peer.peerinfo import PeerInfo
    from libp2p.tools.anyio_service import background_trio_service
    from multiaddr import Multiaddr

    size = len(Signed().advert(0)[1])
    tally, chance, topic = Tally(), random.Random(1), "qubix/devnet/offers/local"
    counters = [0] * NODES
    loopback = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
    async with AsyncExitStack() as stack:
        nodes: list[tuple[Any, Any]] = []
        for _ in range(NODES):
            host, router, pubsub = _stock_node()
            await stack.enter_async_context(host.run(listen_addrs=loopback))
            await stack.enter_async_context(background_trio_service(pubsub))
            await stack.enter_async_context(background_trio_service(router))
            await pubsub.wait_until_ready()
            nodes.append((host, pubsub))
        nursery = await stack.enter_async_context(trio.open_nursery())
        for number, (_, pubsub) in enumerate(nodes):
            nursery.start_soon(_hear_stock, await pubsub.subscribe(topic), tally, number)
        for number, (host, _) in enumerate(nodes):
            for other in _neighbours(number, chance):
                target = nodes[other][0]
                await host.connect(PeerInfo(target.get_id(), target.get_transport_addrs()))

        async def say(node: int) -> None:
            counters[node] += 1
            tally.say(node, counters[node])
            head = struct.pack(">II", node, counters[node])
            await nodes[node][1].publish(topic, head + os.urandom(size - len(head)))

        found = await _measure(tally, say)
        print(json.dumps(found), flush=True)
        # Leaving its context managers one by one can hang or raise: the figures are told, the process may end.
        os._exit(0)


async def _hear_stock(subscription: Any, tally: Tally, listener: int) -> None:
    async for message in subscription:
        node, number = struct.unpack(">II", message.data[:8])
        tally.hear(listener, node, number)


def _stock_node() -> tuple[Any, Any, Any]:
    """`new_host` speaks plaintext unless told otherwise, and its heartbeat is 120 s: those two are not as they come."""
    from libp2p import new_host
    from libp2p.crypto.ed25519 import create_new_key_pair as create_keys
    from libp2p.crypto.x25519 import create_new_key_pair
    from libp2p.custom_types import TProtocol
    from libp2p.network.config import ConnectionConfig
    from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
    from libp2p.pubsub.pubsub import Pubsub
    from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
    from libp2p.security.noise.transport import Transport as NoiseTransport
    from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
    from libp2p.stream_muxer.yamux.yamux import Yamux

    keys = create_keys()
    host = new_host(
        key_pair=keys,
        sec_opt={NOISE_ID: NoiseTransport(keys, noise_privkey=create_new_key_pair().private_key)},
        muxer_opt={TProtocol(YAMUX_ID): Yamux},
        connection_config=ConnectionConfig(min_connections=0, low_watermark=0),
    )
    router = GossipSub(
        protocols=[PROTOCOL_ID_V11],
        degree=4,
        degree_low=2,
        degree_high=8,
        heartbeat_interval=1,
        spam_protection_enabled=False,
        eclipse_protection_enabled=False,
        adaptive_gossip_enabled=False,
    )
    pubsub = Pubsub(host, router, strict_signing=True)
    pubsub.counter = time.time_ns()
    return host, router, pubsub


if __name__ == "__main__":
    kind = {"ours": _ours, "stock": _stock}[sys.argv[1]]
    print(json.dumps(trio.run(kind)), flush=True)
