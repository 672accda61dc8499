# SPDX-License-Identifier: Apache-2.0
"""Trust P1: an envelope is believed only whole, in time, by its audience, on its network, once."""

import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_protocol import envelope
from qubix_protocol.envelope import ANYONE, ReplayGuard, Sealer, open_envelope, peek_type, read_evidence, seal
from qubix_protocol.errors import (
    BadSignature,
    Expired,
    Malformed,
    ProtocolError,
    Replayed,
    TooLarge,
    WrongAudience,
    WrongNetwork,
    WrongVersion,
)
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Accept, Heartbeat
from qubix_protocol.statements import FromNode
from qubix_protocol.units import FRAME_BYTES_MAX

NODE = SigningKey(bytes(31) + b"\1")
COORDINATOR = SigningKey(bytes(31) + b"\2")
OTHER = SigningKey(bytes(31) + b"\3")
ACCEPT = Accept(attempt_id="00000000-0000-0000-0000-000000000001", fence=1)
NOW = 1_000_000


def sealed(**changes: object) -> bytes:
    given = {
        "network": "devnet",
        "audience": COORDINATOR.public,
        "incarnation": 3,
        "counter": 7,
        "expires_ms": NOW + 1000,
    }
    return seal(ACCEPT, changes.pop("key", NODE), **(given | changes))  # type: ignore[arg-type]


def opened(raw: bytes, **changes: object) -> envelope.Opened:
    given = {"network": "devnet", "audience": COORDINATOR.public, "now_ms": NOW, "sender": NODE.public}
    return open_envelope(raw, **(given | changes))  # type: ignore[arg-type]


def test_a_genuine_envelope_opens_to_what_was_sealed() -> None:
    found = opened(sealed())
    assert found.body(FromNode) == ACCEPT
    assert found.sequence == (3, 7)
    assert found.header.sender == NODE.public


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"network": "main"}, WrongNetwork),
        ({"audience": OTHER.public}, WrongAudience),
        ({"expires_ms": NOW - 1}, Expired),
        ({"expires_ms": NOW + 10_000_000}, Expired),
        ({"key": OTHER}, BadSignature),
    ],
)
def test_what_is_not_meant_for_here_and_now_is_refused(changes: dict[str, object], error: type[ProtocolError]) -> None:
    with pytest.raises(error):
        opened(sealed(**changes))


def test_gossip_is_for_anyone() -> None:
    assert opened(sealed(audience=ANYONE)).body(FromNode) == ACCEPT


@given(st.data())
def test_any_flipped_bit_is_refused(data: st.DataObject) -> None:
    raw = bytearray(sealed())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ProtocolError):
        opened(bytes(raw)).body(FromNode)


@given(st.binary(max_size=400))
def test_garbage_is_refused_with_a_protocol_error(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        opened(raw)
    assert peek_type(raw) == ""


def test_an_oversized_envelope_is_refused_before_it_is_read() -> None:
    raw = bytes(FRAME_BYTES_MAX + 1)
    with pytest.raises(TooLarge):
        opened(raw)


def test_a_length_claim_beyond_the_data_reserves_no_memory() -> None:
    claim = b"\x92\xc6\x7f\xff\xff\xff" + b"x" * 10  # an array of two whose first item claims 2 GiB
    tracemalloc.start()
    with pytest.raises(Malformed):
        opened(claim)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_the_type_in_the_header_must_be_the_body_s() -> None:
    raw = sealed()
    signed, _ = msgpack.unpackb(raw)
    header = msgpack.unpackb(signed)
    header[2] = "heartbeat"
    signed = msgpack.packb(header)
    raw = msgpack.packb([signed, NODE.sign(b"qubix/envelope/1\0" + signed)])
    with pytest.raises(Malformed, match="heartbeat"):
        opened(raw).body(FromNode)


def test_another_protocol_version_is_refused() -> None:
    signed, _ = msgpack.unpackb(sealed())
    header = msgpack.unpackb(signed)
    header[0] = 2
    signed = msgpack.packb(header)
    with pytest.raises(WrongVersion):
        opened(msgpack.packb([signed, NODE.sign(b"qubix/envelope/1\0" + signed)]))


def test_replays_and_reordered_counters_are_refused() -> None:
    guard = ReplayGuard(3)
    guard.check(opened(sealed(counter=7)))
    for counter in (7, 6, 0):
        with pytest.raises(Replayed):
            guard.check(opened(sealed(counter=counter)))
    guard.check(opened(sealed(counter=8)))


def test_a_statement_of_another_incarnation_is_a_replay() -> None:
    guard = ReplayGuard(4)
    with pytest.raises(Replayed):
        guard.check(opened(sealed(incarnation=3)))


def test_a_sealer_counts_and_dates_by_the_receiver_s_clock() -> None:
    sealer = Sealer(
        NODE, network="devnet", audience=COORDINATOR.public, incarnation=9, clock_ms=lambda: NOW, life_ms=500
    )
    first, second = (opened(sealer.seal(Heartbeat())) for _ in range(2))
    assert (first.sequence, second.sequence) == ((9, 1), (9, 2))
    assert first.header.expires_ms == NOW + 500


def test_evidence_is_read_long_after_it_expired() -> None:
    raw = sealed(expires_ms=5)
    assert read_evidence(raw, network="devnet", sender=NODE.public).body(FromNode) == ACCEPT
    with pytest.raises(BadSignature):
        read_evidence(raw, network="devnet", sender=OTHER.public)
    with pytest.raises(WrongNetwork):
        read_evidence(raw, network="main", sender=NODE.public)
