# SPDX-License-Identifier: Apache-2.0
"""The coordinator's side of a control session: what is refused, and that a refusal changes nothing."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from qubix_coordinator.http.session import NotYet, Session, certificate
from qubix_protocol import envelope, errors
from qubix_protocol.adverts import Licence, encode_advert, read_certificate
from qubix_protocol.browser import NO_EXCHANGE
from qubix_protocol.channel import Channel, Exchange, Side, label_of
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import (
    Accept,
    Certificate,
    Challenge,
    Device,
    Heartbeat,
    Hello,
    Host,
    Message,
    Offer,
    Welcome,
)
from qubix_protocol.states import Availability, DeviceKind
from qubix_protocol.units import FRAME_BYTES_MAX, GOSSIP_BYTES_MAX

COORDINATOR, NODE, OTHER = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3))
NONCE = b"n" * 32
SECRET = b"c" * 32
"""The coordinator's of the session."""
EXCHANGE = Exchange(b"d" * 32)
"""The node's."""
ATTEMPT = "00000000-0000-4000-8000-000000000001"
HOST = Host(system="Linux", cpu_model="x", cpu_cores=2, memory_bytes=1, agent="test")


@dataclass
class Clock:
    ms: int = 1_000_000

    def __call__(self) -> int:
        return self.ms


@dataclass
class Node:
    """Seals as a node does; `broken` fields let a test say something wrong."""

    key: SigningKey = NODE
    incarnation: int = 0
    counter: int = 0
    clock: Clock = field(default_factory=Clock)
    channel: Channel | None = None

    def say(self, message: Message, **wrong: Any) -> bytes:
        envelope = self.sign(message, **wrong)
        return self.channel.encrypt(envelope) if self.channel else envelope

    def sign(self, message: Message, **wrong: Any) -> bytes:
        self.counter += 1
        how: dict[str, Any] = {
            "network": "test",
            "audience": COORDINATOR.public,
            "incarnation": self.incarnation,
            "counter": self.counter,
            "expires_ms": self.clock.ms + 60_000,
        }
        return envelope.seal(message, wrong.pop("key", self.key), **{**how, **wrong})

    def hello(self, nonce: bytes = NONCE, proved: bytes | None = None, **wrong: Any) -> bytes:
        self.channel = EXCHANGE.channel(Exchange(SECRET).public, nonce=NONCE, side=Side.NODE)
        hello = Hello(nonce=nonce, exchange=proved or EXCHANGE.public, clock_ms=1, host=HOST)
        return self.channel.encrypt(self.sign(hello, **wrong), EXCHANGE.public)

    def read(self, raw: bytes, kind: type[Any]) -> Any:
        assert self.channel is not None
        return read(self.channel.decrypt(raw), kind)


DEVICE = Device(device_id="cpu-1", kind=DeviceKind.CPU, model="x", memory_bytes=1, backends=("cpu",))


def offer() -> Offer:
    return Offer(device=DEVICE, rate_qu_per_h=1, region="local", availability=Availability.AVAILABLE)


def start(clock: Clock | None = None) -> Session:
    return Session(
        COORDINATOR, network="test", peer_id=NODE.peer_id, nonce=NONCE, exchange=SECRET, clock_ms=clock or Clock()
    )


def shake(session: Session, node: Node, incarnation: int = 7) -> bytes:
    session.receive_hello(node.hello())
    node.incarnation, node.counter = incarnation, 0
    return session.welcome(
        incarnation,
        account_id=ATTEMPT,
        heartbeat_s=2,
        offer_s=30,
        telemetry_s=5,
        artifact_url="http://x",
        region="local",
        certificate_ms=100_000,
    )


def welcomed(session: Session, node: Node) -> Welcome:
    welcome = node.read(shake(session, node), Welcome)
    assert isinstance(welcome, Welcome)
    return welcome


def read(raw: bytes, kind: type[Any]) -> Any:
    return envelope.open_envelope(
        raw, network="test", audience=NODE.public, now_ms=1_000_000, sender=COORDINATOR.public
    ).body(kind)


def test_handshake_leads_to_a_live_session_both_ways() -> None:
    session, node = start(), Node()
    assert read(session.challenge(), Challenge).nonce == NONCE
    assert not session.live
    assert node.read(shake(session, node), Welcome).incarnation == 7
    assert session.live
    assert session.incarnation == 7
    accept = Accept(attempt_id=ATTEMPT, fence=1)
    assert session.receive(node.say(accept)).message == accept


HELLOS: dict[str, tuple[dict[str, Any], type[errors.ProtocolError]]] = {
    "forged": ({"key": OTHER}, errors.BadSignature),
    "wrong network": ({"network": "main"}, errors.WrongNetwork),
    "wrong audience": ({"audience": OTHER.public}, errors.WrongAudience),
    "expired": ({"expires_ms": 999_999}, errors.Expired),
    "too far ahead": ({"expires_ms": 9_999_999}, errors.Expired),
    "another key": ({"proved": b"p" * 32}, errors.BadSignature),
    "wrong nonce": ({"nonce": b"x" * 32}, errors.Replayed),
    "stale": ({"incarnation": 3}, errors.Replayed),
}


@pytest.mark.parametrize("wrong", HELLOS)
def test_hello_that_is_not_to_be_believed_is_refused_and_the_right_one_still_works(wrong: str) -> None:
    session, node = start(), Node()
    how, expected = HELLOS[wrong]
    with pytest.raises(expected):
        session.receive_hello(node.hello(**how))
    assert not session.live
    session.receive_hello(node.hello())


def test_a_nonce_serves_one_hello() -> None:
    session, node = start(), Node()
    hello = node.hello()
    session.receive_hello(hello)
    with pytest.raises(NotYet):
        session.receive_hello(hello)


def test_statements_before_the_handshake_are_refused() -> None:
    session, node = start(), Node()
    with pytest.raises(NotYet):
        session.receive(node.say(Heartbeat()))
    with pytest.raises(NotYet):
        session.receive_offer(node.sign(offer(), audience=envelope.ANYONE))


STATEMENTS: dict[str, tuple[dict[str, Any], type[errors.ProtocolError]]] = {
    "forged": ({"key": OTHER}, errors.BadSignature),
    "wrong network": ({"network": "devnet"}, errors.WrongNetwork),
    "wrong audience": ({"audience": OTHER.public}, errors.WrongAudience),
    "to anyone": ({"audience": envelope.ANYONE}, errors.WrongAudience),
    "expired": ({"expires_ms": 1}, errors.Expired),
    "stale incarnation": ({"incarnation": 6}, errors.Replayed),
    "no incarnation": ({"incarnation": 0}, errors.Replayed),
    "old counter": ({"counter": 1}, errors.Replayed),
}


@pytest.mark.parametrize("wrong", STATEMENTS)
def test_statement_that_is_not_to_be_believed_is_refused_and_the_next_one_still_works(wrong: str) -> None:
    session, node = start(), Node()
    shake(session, node)
    session.receive(node.say(Heartbeat()))
    how, expected = STATEMENTS[wrong]
    with pytest.raises(expected):
        session.receive(node.say(Heartbeat(), **how))
    session.receive(node.say(Heartbeat()))


def test_replay_of_the_very_same_bytes_is_refused() -> None:
    session, node = start(), Node()
    shake(session, node)
    raw = node.say(Heartbeat())
    session.receive(raw)
    with pytest.raises(errors.Replayed):
        session.receive(raw)


def test_statements_of_an_earlier_session_are_refused_in_the_next() -> None:
    first, second, node = start(), start(), Node()
    shake(first, node, incarnation=7)
    old = node.say(Heartbeat())
    node.incarnation, node.counter = 0, 0
    shake(second, node, incarnation=8)
    with pytest.raises(errors.Replayed):
        second.receive(old)


def test_oversized_and_malformed_bytes_are_refused() -> None:
    session, node = start(), Node()
    shake(session, node)
    with pytest.raises(errors.TooLarge):
        session.receive(bytes(FRAME_BYTES_MAX + 1))
    with pytest.raises(errors.TooLarge):
        session.receive_offer(bytes(GOSSIP_BYTES_MAX + 1))
    for junk in (b"", b"\xc1", b"\xdd\xff\xff\xff\xff", b"not an envelope"):
        with pytest.raises(errors.Malformed):
            session.receive(junk)


def test_what_only_the_coordinator_may_say_is_refused() -> None:
    session, node = start(), Node()
    shake(session, node)
    with pytest.raises(errors.Malformed):
        session.receive(node.say(Challenge(nonce=NONCE, clock_ms=1, exchange=EXCHANGE.public)))
    with pytest.raises(errors.Malformed):
        session.receive(node.say(Hello(nonce=NONCE, exchange=EXCHANGE.public, clock_ms=1, host=HOST)))


def test_offers_have_a_guard_of_their_own() -> None:
    session, node = start(), Node()
    shake(session, node)
    session.receive(node.say(Heartbeat(), counter=50))
    older, newer = (node.sign(offer(), audience=envelope.ANYONE, counter=n) for n in (10, 11))
    assert session.receive_offer(newer) == offer()
    assert session.receive_offer(newer) is None
    with pytest.raises(errors.Replayed):
        session.receive_offer(older)
    with pytest.raises(errors.Replayed):
        session.receive_offer(node.sign(offer(), audience=envelope.ANYONE, incarnation=6))


def test_p3_an_offer_needs_a_certificate_of_its_own_session() -> None:
    session, node = start(), Node()
    given = welcomed(session, node).certificate
    first, again = (node.sign(offer(), audience=envelope.ANYONE) for _ in range(2))
    assert session.receive_advert(encode_advert(given, first)) == (offer(), first)
    assert session.receive_advert(encode_advert(given, first)) is None
    other = certificate(
        COORDINATOR,
        network="test",
        peer_id=NODE.peer_id,
        region="local",
        incarnation=6,
        expires_ms=10_000_000,
        now_ms=1,
    )
    for wrong in (b"", other):
        with pytest.raises(errors.NotCertified):
            session.receive_advert(encode_advert(wrong, again))
    with pytest.raises(errors.BadSignature):
        session.receive_advert(encode_advert(other, node.sign(offer(), audience=envelope.ANYONE, key=OTHER)))
    elsewhere = msgspec.structs.replace(offer(), region="eu")
    with pytest.raises(errors.WrongRegion):
        session.receive_advert(encode_advert(given, node.sign(elsewhere, audience=envelope.ANYONE)))
    assert session.receive_advert(encode_advert(given, again)) == (offer(), again), "nothing wrong was remembered"


def test_p3_certificates_are_renewed_before_they_expire_and_both_count_meanwhile() -> None:
    clock = Clock()
    session, node = start(clock), Node(clock=clock)
    first = welcomed(session, node).certificate
    assert session.renewal() is None
    clock.ms += 50_000
    renewal = session.renewal()
    assert renewal is not None
    assert session.renewal() is None
    licence = read_certificate(renewal.certificate, network="test", coordinator=COORDINATOR.public)
    assert licence == Licence(NODE.peer_id, "local", clock.ms + 100_000, 7)
    for given in (first, renewal.certificate):
        assert session.receive_advert(encode_advert(given, node.sign(offer(), audience=envelope.ANYONE)))


def test_offers_of_different_devices_may_overtake_each_other() -> None:
    session, node = start(), Node()
    given = welcomed(session, node).certificate
    one, other = offer(), msgspec.structs.replace(offer(), device=msgspec.structs.replace(DEVICE, device_id="two"))
    early, late = (node.sign(said, audience=envelope.ANYONE) for said in (one, other))
    assert session.receive_advert(encode_advert(given, late)) == (other, late)
    assert session.receive_advert(encode_advert(given, early)) == (one, early)


def test_certificate_can_be_read_long_after_it_was_sent() -> None:
    raw = certificate(
        COORDINATOR,
        network="test",
        peer_id=NODE.peer_id,
        region="local",
        incarnation=7,
        expires_ms=10_000_000,
        now_ms=1_000_000,
    )
    said = envelope.read_evidence(raw, network="test", sender=COORDINATOR.public).body(Certificate)
    assert said == Certificate(peer_id=NODE.peer_id, region="local", expires_ms=10_000_000)


def test_p4_what_others_could_read_is_no_statement_and_nobody_else_reads_one() -> None:
    """A gateway sees a label; and what it was not told, it cannot say."""
    session, node = start(), Node()
    shake(session, node)
    with pytest.raises(errors.Malformed):
        session.receive(node.sign(Heartbeat()))
    frame = node.say(Accept(attempt_id=ATTEMPT, fence=1))
    assert ATTEMPT.encode() not in frame
    assert label_of(frame) == "statement"
    other = Exchange(b"e" * 32).channel(Exchange(SECRET).public, nonce=NONCE, side=Side.NODE)
    with pytest.raises(errors.BadSignature):
        session.receive(other.encrypt(node.sign(Heartbeat())))
    assert session.receive(frame).message == Accept(attempt_id=ATTEMPT, fence=1)


# A browser tab's session, which nothing stands between ---------------------------------------------------------------


def tab_session(clock: Clock) -> Session:
    return Session(COORDINATOR, network="test", peer_id=NODE.peer_id, nonce=NONCE, exchange=None, clock_ms=clock)


def welcomed_tab(session: Session) -> bytes:
    return session.welcome(
        1,
        account_id=ATTEMPT,
        heartbeat_s=2.0,
        offer_s=30.0,
        telemetry_s=5.0,
        artifact_url="http://here/artifacts",
        region="local",
        certificate_ms=60_000,
    )


def test_a_tabs_session_is_signed_and_not_hidden() -> None:
    node = Node()
    session = tab_session(node.clock)
    challenge = read(session.challenge(), Challenge)
    assert challenge.exchange == NO_EXCHANGE
    hello = Hello(nonce=challenge.nonce, exchange=NO_EXCHANGE, clock_ms=1, host=HOST)
    session.receive_hello(node.sign(hello))
    assert read(welcomed_tab(session), Welcome).incarnation == 1
    node.incarnation = 1
    assert session.receive(node.sign(Heartbeat())).message == Heartbeat()


def test_neither_kind_of_session_believes_the_others_frames() -> None:
    node = Node()
    plain = Hello(nonce=NONCE, exchange=NO_EXCHANGE, clock_ms=1, host=HOST)
    with pytest.raises(errors.ProtocolError):
        tab_session(node.clock).receive_hello(node.hello())
    hidden = Session(
        COORDINATOR, network="test", peer_id=NODE.peer_id, nonce=NONCE, exchange=SECRET, clock_ms=node.clock
    )
    with pytest.raises(errors.ProtocolError):
        hidden.receive_hello(node.sign(plain))
    hidden.receive_hello(node.hello())
    welcomed_tab(hidden)
    node.incarnation = 1
    with pytest.raises(errors.ProtocolError):
        hidden.receive(node.sign(Heartbeat()))


def test_a_node_agrees_on_nothing_with_a_tabs_challenge() -> None:
    """A gateway that hands a node a challenge of a session that it could read gets no answer."""
    with pytest.raises(errors.BadSignature):
        EXCHANGE.channel(NO_EXCHANGE, nonce=NONCE, side=Side.NODE)
