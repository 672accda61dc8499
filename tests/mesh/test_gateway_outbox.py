# SPDX-License-Identifier: Apache-2.0
"""The line to the coordinator: who waits how long, what is kept, what is refused."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from qubix_mesh.gateway import rules
from qubix_mesh.gateway.outbox import Outbox
from qubix_mesh.gateway.rules import Entry, assemble
from qubix_protocol.keys import SigningKey
from qubix_protocol.link import FromGateway, FromPeer, Gossip, PeerDown, PeerUp, decode_gateway, encode_gateway
from qubix_protocol.units import FRAME_BYTES_MAX, LINK_MESSAGE_BYTES_MAX
from tests.mesh.mesh_world import seed

ONE, TWO, THREE = (SigningKey(seed(number)).peer_id for number in (1, 2, 3))


def new_outbox(**changes: int) -> Outbox:
    return Outbox(**{"frames_per_peer": 1000, "bytes_max": 10**7, "gossip_max": 100, **changes})


def frames_of(items: tuple[FromGateway, ...], peer_id: str) -> list[bytes]:
    return [frame for item in items if isinstance(item, FromPeer) and item.peer_id == peer_id for frame in item.frames]


@given(st.lists(st.tuples(st.sampled_from([ONE, TWO, THREE]), st.sampled_from(["frame", "up", "down"])), max_size=60))
def test_a_batch_keeps_the_order_of_each_peer(story: list[tuple[str, str]]) -> None:
    entries = [Entry(peer, _item(peer, what, number)) for number, (peer, what) in enumerate(story)]
    items = assemble(entries, [])
    for peer in (ONE, TWO, THREE):
        flat = [
            part
            for item in items
            if item.peer_id == peer  # type: ignore[union-attr]
            for part in (item.frames if isinstance(item, FromPeer) else [item])
        ]
        assert flat == [entry.item for entry in entries if entry.peer_id == peer]


def _item(peer: str, what: str, number: int) -> PeerUp | PeerDown | bytes:
    if what == "frame":
        return b"%d" % number
    return PeerUp(peer_id=peer) if what == "up" else PeerDown(peer_id=peer)


def test_frames_of_a_busy_peer_split_at_the_limit_of_an_item() -> None:
    items = assemble([Entry(ONE, b"x")] * (rules.FRAMES_PER_ITEM + 1), [])
    assert [len(item.frames) for item in items if isinstance(item, FromPeer)] == [rules.FRAMES_PER_ITEM, 1]


@pytest.mark.trio
async def test_the_largest_batch_is_one_that_the_coordinator_takes() -> None:
    outbox = new_outbox(bytes_max=10**8)
    for _ in range(rules.BATCH_ITEMS):
        outbox.put_frame(ONE, bytes(FRAME_BYTES_MAX), "report")
        outbox.put_gossip(Gossip(author=TWO, topic="t", data=bytes(16 * 1024)))
    packed = encode_gateway(await outbox.next_batch())
    assert len(packed) <= LINK_MESSAGE_BYTES_MAX
    assert decode_gateway(packed)


@pytest.mark.trio
@pytest.mark.parametrize(("kind", "waits_s"), [("report", 0.0), ("heartbeat", 0.010), ("telemetry", 0.250)])
async def test_each_type_waits_as_long_as_it_may(kind: str, waits_s: float, autojump_clock: MockClock) -> None:
    outbox = new_outbox()
    began_s = trio.current_time()
    outbox.put_frame(ONE, b"x", kind)
    await outbox.next_batch()
    assert trio.current_time() - began_s == pytest.approx(waits_s)


@pytest.mark.trio
async def test_control_takes_the_waiting_telemetry_along_in_order(autojump_clock: MockClock) -> None:
    outbox = new_outbox()
    began_s = trio.current_time()
    batches: list[tuple[FromGateway, ...]] = []

    async def write() -> None:
        batches.append(await outbox.next_batch())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        outbox.put_frame(ONE, b"sample", "telemetry")
        await wait_all_tasks_blocked()
        assert batches == []
        outbox.put_frame(ONE, b"report", "report")
    assert frames_of(batches[0], ONE) == [b"sample", b"report"]
    assert trio.current_time() == began_s


@pytest.mark.trio
async def test_a_full_batch_does_not_wait(autojump_clock: MockClock) -> None:
    outbox = new_outbox()
    began_s = trio.current_time()
    for _ in range(rules.BATCH_ITEMS):
        outbox.put_frame(ONE, b"x", "telemetry")
    await outbox.next_batch()
    assert trio.current_time() == began_s


@pytest.mark.trio
async def test_control_over_the_bound_is_refused_and_others_are_not() -> None:
    outbox = new_outbox(frames_per_peer=3)
    assert [outbox.put_frame(ONE, b"x", "report") for _ in range(4)] == [True, True, True, False]
    assert outbox.put_frame(TWO, b"x", "report")
    await outbox.next_batch()
    assert outbox.put_frame(ONE, b"x", "report"), "what was sent makes room"


@pytest.mark.trio
async def test_telemetry_over_the_bound_keeps_the_newest() -> None:
    outbox = new_outbox(frames_per_peer=3)
    outbox.put_frame(ONE, b"control", "report")
    assert all(outbox.put_frame(ONE, b"%d" % number, "telemetry") for number in range(10))
    assert frames_of(await outbox.next_batch(), ONE) == [b"control", b"8", b"9"]
    assert outbox.telemetry_dropped == 8


@pytest.mark.trio
async def test_all_bytes_together_are_bounded() -> None:
    outbox = new_outbox(bytes_max=100)
    assert outbox.put_frame(ONE, bytes(60), "report")
    assert not outbox.put_frame(TWO, bytes(60), "report")
    outbox.clear()
    assert outbox.put_frame(TWO, bytes(60), "report")


@pytest.mark.trio
async def test_gossip_keeps_the_newest() -> None:
    outbox = new_outbox(gossip_max=2)
    for number in range(5):
        outbox.put_gossip(Gossip(author=ONE, topic="t", data=b"%d" % number))
    assert [item.data for item in await outbox.next_batch() if isinstance(item, Gossip)] == [b"3", b"4"]
    assert outbox.gossip_dropped == 3
