# SPDX-License-Identifier: Apache-2.0
"""The crash tests' own judges: the log of the wire misses no message, and what is lost, doubled or changed is found."""

import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_node import key_log
from qubix_protocol import digests
from qubix_protocol.channel import Exchange, Side
from qubix_protocol.envelope import seal
from qubix_protocol.keys import SigningKey
from qubix_protocol.link import FromPeer, ToPeer, encode_coordinator, encode_gateway
from qubix_protocol.messages import Acknowledged, Hello, Host, Link, Message, Progress, Range
from tests.support.crash_market import links_acknowledged, paid_once
from tests.support.wire import Log, Messages

HEAD = b"GET /mesh/link HTTP/1.1\r\nHost: x\r\n\r\n"
ATTEMPT = "00000000-0000-0000-0002-000000000001"
NODE = SigningKey(b"n" * 32)


def frame(payload: bytes, *, opcode: int = 2, final: bool = True, masked: bool) -> bytes:
    """By RFC 6455, 5.2."""
    size = len(payload)
    length = (
        bytes([size])
        if size < 126
        else b"\x7e" + struct.pack(">H", size)
        if size < 65536
        else b"\x7f" + struct.pack(">Q", size)
    )
    first = bytes([(0x80 if final else 0) | opcode])
    if not masked:
        return first + length + payload
    mask = os.urandom(4)
    hidden = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return first + bytes([length[0] | 0x80]) + length[1:] + mask + hidden


@given(
    st.lists(st.binary(max_size=300), max_size=5), st.booleans(), st.lists(st.integers(1, 50), min_size=1, max_size=20)
)
def test_messages_are_found_however_the_stream_is_cut(payloads: list[bytes], masked: bool, cuts: list[int]) -> None:
    stream = HEAD + b"".join(
        frame(b"ping", opcode=9, masked=masked) + frame(payload, masked=masked) for payload in payloads
    )
    found: list[bytes] = []
    messages, at = Messages(found.append), 0
    while at < len(stream):
        step = cuts[at % len(cuts)]
        messages.feed(stream[at : at + step])
        at += step
    assert found == payloads


@pytest.mark.parametrize("size", [125, 126, 65535, 65536])
def test_long_messages_and_those_in_several_frames_are_whole(size: int) -> None:
    payload, found = os.urandom(size), []
    messages = Messages(found.append)
    messages.feed(HEAD + frame(payload, masked=True))
    messages.feed(frame(payload[:50], final=False, masked=True) + frame(payload[50:], opcode=0, masked=True))
    assert found == [payload, payload]


def a_link(index: int = 0) -> Link:
    return Link(
        index=index,
        units=Range(0, 5),
        output_digest=bytes(32),
        output_bytes=1,
        claimed_ms=1,
        predecessor=digests.ZERO,
    )


def signed(message: Message) -> bytes:
    return seal(
        message, NODE, network="devnet", audience=bytes(range(32)), incarnation=1, counter=1, expires_ms=1_000_000
    )


class Session:
    """Both sides of an encrypted session whose keys the log of the wire is told, as a node writes them down."""

    def __init__(self, folder: Path) -> None:
        self.exchange = Exchange(b"n" * 32)
        other, nonce = Exchange(b"c" * 32), bytes(32)
        self.node = self.exchange.channel(other.public, nonce=nonce, side=Side.NODE)
        self.coordinator = other.channel(self.exchange.public, nonce=nonce, side=Side.COORDINATOR)
        key_log.writer(folder / "keys.log")(self.exchange.public, self.node)

    def hello(self) -> bytes:
        host = Host(system="Linux", cpu_model="x", cpu_cores=1, memory_bytes=1, agent="test")
        hello = Hello(nonce=bytes(32), exchange=self.exchange.public, clock_ms=1, host=host)
        return self.node.encrypt(signed(hello), self.exchange.public)


def seen(folder: Path, *acknowledged: int, passed: bool = True) -> tuple[Log, list[dict[str, Any]]]:
    """A link that is stored, and was said on the wire unless it came by HTTPS; acknowledgements of these indices."""
    session = Session(folder)
    wire, link = Log(folder / "keys.log"), a_link()
    said = signed(Progress(attempt_id=ATTEMPT, fence=1, fraction=0.5, elapsed_ms=1, link=link))
    wire.from_gateway(encode_gateway((FromPeer(peer_id=NODE.peer_id, frames=(session.hello(),)),)))
    if passed:
        frame = session.node.encrypt(said)
        wire.from_gateway(encode_gateway((FromPeer(peer_id=NODE.peer_id, frames=(frame,)),)))
    for index in acknowledged:
        told = session.coordinator.encrypt(signed(Acknowledged(attempt_id=ATTEMPT, fence=1, link=index)))
        wire.from_coordinator(encode_coordinator((ToPeer(peer_id=NODE.peer_id, frames=(told,)),)))
    assert wire.unreadable == 0
    row = {"attempt_id": ATTEMPT, "index": 0, "chain_digest": digests.of_link(link)}
    return wire, [row | {"peer_id": NODE.peer_id, "envelope": said}]


@pytest.mark.parametrize("passed", [True, False])
def test_what_was_acknowledged_and_is_here_is_right(tmp_path: Path, passed: bool) -> None:
    wire, rows = seen(tmp_path, 0, passed=passed)
    links_acknowledged(wire, {(ATTEMPT, 0), (ATTEMPT, None), ("another", 7)}, rows)


def test_a_link_that_was_acknowledged_and_is_gone_is_found(tmp_path: Path) -> None:
    wire, rows = seen(tmp_path, 0, 1)
    with pytest.raises(AssertionError, match="is gone"):
        links_acknowledged(wire, set(), rows)
    wire, rows = seen(tmp_path, 0)
    with pytest.raises(AssertionError, match="is gone"):
        links_acknowledged(wire, {(ATTEMPT, 1)}, rows)


def test_what_nobody_wrote_the_keys_of_is_told(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    wire, _ = seen(tmp_path)
    stranger = Session(tmp_path / "other").node.encrypt(signed(Acknowledged(attempt_id=ATTEMPT, fence=1)))
    wire.from_gateway(encode_gateway((FromPeer(peer_id="another", frames=(stranger,)),)))
    assert wire.unreadable == 1


@pytest.mark.parametrize("passed", [True, False])
def test_a_link_that_was_never_said_or_said_otherwise_is_found(tmp_path: Path, passed: bool) -> None:
    wire, rows = seen(tmp_path, 0, passed=passed)
    with pytest.raises(AssertionError, match="another link"):
        links_acknowledged(wire, set(), [{**rows[0], "chain_digest": bytes(32)}])


@pytest.mark.parametrize("paid", [[(0, 5), (4, 9)], [(0, 5), (6, 9)], [(1, 9)], [(0, 8)]])
def test_units_paid_twice_or_not_at_all_are_found(paid: list[tuple[int, int]]) -> None:
    rows = [{"start": start, "stop": stop, "paid": True} for start, stop in paid]
    with pytest.raises(AssertionError):
        paid_once(rows, 9)
    paid_once([*({**row, "paid": False} for row in rows), {"start": 0, "stop": 9, "paid": True}], 9)
