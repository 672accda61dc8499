# SPDX-License-Identifier: Apache-2.0
"""What a gateway sees of a control session: a label, and nothing it could read, change, or say itself (trust P4)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_protocol.channel import Channel, Exchange, Side, exchange_in, label_of
from qubix_protocol.envelope import seal
from qubix_protocol.errors import BadSignature, Malformed, ProtocolError, TooLarge
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Accept, Heartbeat, Message
from qubix_protocol.units import FRAME_BYTES_MAX

NODE = SigningKey(b"n" * 32)
ATTEMPT = "00000000-0000-4000-8000-000000000001"
ACCEPT = Accept(attempt_id=ATTEMPT, fence=1)
NONCE = b"1" * 32


def signed(message: Message) -> bytes:
    return seal(message, NODE, network="devnet", audience=bytes(32), incarnation=1, counter=1, expires_ms=1)


def agreed(nonce: bytes = NONCE) -> tuple[Channel, Channel]:
    node, coordinator = Exchange(b"a" * 32), Exchange(b"b" * 32)
    return (
        node.channel(coordinator.public, nonce=NONCE, side=Side.NODE),
        coordinator.channel(node.public, nonce=nonce, side=Side.COORDINATOR),
    )


def test_each_side_reads_what_the_other_says_and_not_itself() -> None:
    node, coordinator = agreed()
    for one, other in ((node, coordinator), (coordinator, node)):
        frame = one.encrypt(signed(ACCEPT))
        assert other.decrypt(frame) == signed(ACCEPT)
        with pytest.raises(BadSignature):
            one.decrypt(frame)


def test_nothing_of_a_statement_is_in_the_frame_and_no_two_frames_are_alike() -> None:
    node, _ = agreed()
    first, second = node.encrypt(signed(ACCEPT)), node.encrypt(signed(ACCEPT))
    assert first != second
    for secret in (ATTEMPT.encode(), NODE.public, signed(ACCEPT)[-64:]):
        assert secret not in first


@pytest.mark.parametrize(("message", "label"), [(ACCEPT, "statement"), (Heartbeat(), "heartbeat")])
def test_the_label_says_what_may_wait_and_no_more(message: Message, label: str) -> None:
    node, _ = agreed()
    assert label_of(node.encrypt(signed(message))) == label
    assert label_of(signed(ACCEPT)) == "accept", "a bare envelope's type"
    assert label_of(b"\xc1") == ""


@given(st.data())
def test_any_flipped_bit_is_refused(data: st.DataObject) -> None:
    node, coordinator = agreed()
    frame = bytearray(node.encrypt(signed(ACCEPT), b"k" * 32))
    at = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[at // 8] ^= 1 << at % 8
    with pytest.raises(ProtocolError):
        coordinator.decrypt(bytes(frame))


def test_another_nonce_or_another_key_leads_to_other_keys() -> None:
    node, coordinator = agreed(nonce=b"2" * 32)
    with pytest.raises(BadSignature):
        coordinator.decrypt(node.encrypt(signed(ACCEPT)))
    stranger = Exchange(b"c" * 32).channel(Exchange(b"b" * 32).public, nonce=NONCE, side=Side.NODE)
    with pytest.raises(BadSignature):
        agreed()[1].decrypt(stranger.encrypt(signed(ACCEPT)))


@pytest.mark.parametrize("weak", [bytes(32), b"\1" + bytes(31)])
def test_a_key_with_which_nothing_is_agreed_is_refused(weak: bytes) -> None:
    with pytest.raises(BadSignature, match="exchange key"):
        Exchange(b"a" * 32).channel(weak, nonce=NONCE, side=Side.NODE)


def test_what_is_no_frame_is_refused_before_anything_is_set_aside() -> None:
    _, coordinator = agreed()
    for junk in (b"", b"\xc1", signed(ACCEPT), b"\x94\xa1x\xc4\x00\x00\xc4\x00"):
        with pytest.raises(Malformed):
            coordinator.decrypt(junk)
    with pytest.raises(TooLarge):
        coordinator.decrypt(bytes(FRAME_BYTES_MAX + 1))
    node, _ = agreed()
    with pytest.raises(Malformed):
        exchange_in(node.encrypt(signed(ACCEPT)))
