# SPDX-License-Identifier: Apache-2.0
"""A node whose clock is off by an hour tells the times of its readings by the coordinator's clock all the same."""

import pytest

from qubix_mesh.adverts import Adverts
from qubix_node.session import Session
from qubix_node.voice import Pins
from qubix_protocol.adverts import decode_advert
from qubix_protocol.channel import Exchange, Side
from qubix_protocol.envelope import ANYONE, ReplayGuard, Sealer, read_evidence
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Certificate, Challenge, Device, DeviceSample, Offer, Sample, Telemetry, Welcome
from qubix_protocol.states import Availability, DeviceKind

NODE, COORDINATOR = SigningKey(b"n" * 32), SigningKey(b"c" * 32)
NOW = 1_700_000_000_000
HOUR = 3_600_000
DEVICE = Device(device_id="cpu-1", kind=DeviceKind.CPU, model="x", memory_bytes=1, backends=("cpu",))
PERMIT = Sealer(COORDINATOR, network="devnet", audience=ANYONE, incarnation=1, clock_ms=lambda: NOW).seal(
    Certificate(peer_id=NODE.peer_id, region="local", expires_ms=NOW + HOUR)
)
WELCOME = Welcome(
    incarnation=1,
    account_id="00000000-0000-0000-0000-00000000acc0",
    clock_ms=NOW,
    heartbeat_s=2.0,
    offer_s=30.0,
    telemetry_s=5.0,
    artifact_url="http://x",
    certificate=PERMIT,
)


@pytest.mark.parametrize("off_ms", [-HOUR, 0, HOUR])
def test_times_of_readings(off_ms: int) -> None:
    ours, theirs = Exchange(b"1" * 32), Exchange(b"2" * 32)
    channel = ours.channel(theirs.public, nonce=b"x" * 32, side=Side.NODE)
    other = theirs.channel(ours.public, nonce=b"x" * 32, side=Side.COORDINATOR)
    session = Session(
        Pins(NODE, "devnet", COORDINATOR.public), WELCOME, ReplayGuard(1), channel, lambda: NOW + off_ms, lambda: 0
    )
    taken = Sample(at_ms=NOW + off_ms - 5_000, utilisation_pct=1.0)
    raw = session.seal(Telemetry(samples=(DeviceSample(device_id="cpu-1", sample=taken),)))
    told = read_evidence(other.decrypt(raw), network="devnet", sender=NODE.public).body(Telemetry)
    assert told.samples[0].sample == Sample(at_ms=NOW - 5_000, utilisation_pct=1.0)
    offer = Offer(device=DEVICE, rate_qu_per_h=1, region="", availability=Availability.AVAILABLE, metrics=taken)
    sealed = decode_advert(session.voice.advert(offer)).offer
    opened = read_evidence(sealed, network="devnet", sender=NODE.public).body(Offer)
    assert opened.metrics is not None
    assert opened.metrics.at_ms == NOW - 5_000


@pytest.mark.parametrize("off_ms", [-HOUR, 0, HOUR])
@pytest.mark.parametrize("set_by_ms", [-HOUR, 0, HOUR])
def test_p1_what_a_node_says_expires_by_the_coordinators_clock_whatever_its_own_is_set_to(
    off_ms: int, set_by_ms: int
) -> None:
    """Off from the start, and set by somebody while the session lasts: the same adverts are believed, until the same
    moment."""
    wall, steady = [NOW + off_ms], [5]
    ours, theirs = Exchange(b"1" * 32), Exchange(b"2" * 32)
    channel = ours.channel(theirs.public, nonce=b"x" * 32, side=Side.NODE)
    other = theirs.channel(ours.public, nonce=b"x" * 32, side=Side.COORDINATOR)
    says = Sealer(COORDINATOR, network="devnet", audience=NODE.public, incarnation=1, clock_ms=lambda: NOW)
    session = Session.begin(
        other.encrypt(says.seal(WELCOME)),
        Challenge(nonce=b"x" * 32, clock_ms=NOW, exchange=theirs.public),
        Pins(NODE, "devnet", COORDINATOR.public),
        channel,
        lambda: wall[0],
        lambda: steady[0],
    )
    wall[0] += 10_000 + set_by_ms
    steady[0] += 10_000
    offer = Offer(device=DEVICE, rate_qu_per_h=1, region="local", availability=Availability.AVAILABLE)
    advert = session.voice.advert(offer)
    assert [believed(advert, NOW + after_ms) for after_ms in (10_000, 70_000, 70_001)] == [True, True, False]
    assert session.voice.certified
    steady[0] += HOUR
    assert not session.voice.certified


def believed(advert: bytes, now_ms: int) -> bool:
    """By somebody who has heard nothing before."""
    adverts = Adverts(network="devnet", coordinator=COORDINATOR.public, steady_s=lambda: 0.0, clock_ms=lambda: now_ms)
    return adverts.validator("qubix/devnet/offers/local")(NODE.peer_id, advert)
