# SPDX-License-Identifier: Apache-2.0
"""A node whose clock is off by an hour tells the times of its readings by the coordinator's clock all the same."""

import pytest

from qubix_node.session import Pins, Session
from qubix_protocol.channel import Exchange, Side
from qubix_protocol.envelope import ReplayGuard, read_evidence
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Device, DeviceSample, Offer, Sample, Telemetry, Welcome
from qubix_protocol.states import Availability, DeviceKind

NODE, COORDINATOR = SigningKey(b"n" * 32), SigningKey(b"c" * 32)
NOW = 1_700_000_000_000
HOUR = 3_600_000
DEVICE = Device(device_id="cpu-1", kind=DeviceKind.CPU, model="x", memory_bytes=1, backends=("cpu",))
WELCOME = Welcome(
    incarnation=1,
    account_id="a",
    clock_ms=NOW,
    heartbeat_s=2.0,
    offer_s=30.0,
    telemetry_s=5.0,
    artifact_url="http://x",
    certificate=b"c",
)


@pytest.mark.parametrize("off_ms", [-HOUR, 0, HOUR])
def test_times_of_readings(off_ms: int) -> None:
    ours, theirs = Exchange(b"1" * 32), Exchange(b"2" * 32)
    channel = ours.channel(theirs.public, nonce=b"x" * 32, side=Side.NODE)
    other = theirs.channel(ours.public, nonce=b"x" * 32, side=Side.COORDINATOR)
    session = Session(Pins(NODE, "devnet", COORDINATOR.public), WELCOME, ReplayGuard(1), channel, lambda: NOW + off_ms)
    taken = Sample(at_ms=NOW + off_ms - 5_000, utilisation_pct=1.0)
    raw = session.seal(Telemetry(samples=(DeviceSample(device_id="cpu-1", sample=taken),)))
    told = read_evidence(other.decrypt(raw), network="devnet", sender=NODE.public).body(Telemetry)
    assert told.samples[0].sample == Sample(at_ms=NOW - 5_000, utilisation_pct=1.0)
    offer = Offer(device=DEVICE, rate_qu_per_h=1, region="", availability=Availability.AVAILABLE, metrics=taken)
    opened = read_evidence(session.seal_offer(offer), network="devnet", sender=NODE.public).body(Offer)
    assert opened.metrics is not None
    assert opened.metrics.at_ms == NOW - 5_000
