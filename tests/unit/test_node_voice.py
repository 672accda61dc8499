# SPDX-License-Identifier: Apache-2.0
"""A node that starts again without a coordinator goes on offering under the certificate that it kept (trust P3, P5)."""

from pathlib import Path

import pytest

from qubix_mesh.adverts import Adverts
from qubix_node import voice as voices
from qubix_node.voice import KeptVoice, Pins, Voice
from qubix_protocol.envelope import ANYONE, Sealer
from qubix_protocol.errors import NotCertified
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Certificate, Device, Offer
from qubix_protocol.states import Availability, DeviceKind

NODE, COORDINATOR, MALLORY = SigningKey(b"n" * 32), SigningKey(b"c" * 32), SigningKey(b"m" * 32)
PINS = Pins(NODE, "devnet", COORDINATOR.public)
NOW, HOUR = 1_700_000_000_000, 3_600_000
DEVICE = Device(device_id="cpu-1", kind=DeviceKind.CPU, model="x", memory_bytes=1, backends=("cpu",))
OFFER = Offer(device=DEVICE, rate_qu_per_h=1, region="local", availability=Availability.AVAILABLE)


def permit(signer: SigningKey = COORDINATOR, *, expires_ms: int = NOW + HOUR) -> bytes:
    says = Sealer(signer, network="devnet", audience=ANYONE, incarnation=7, clock_ms=lambda: NOW)
    return says.seal(Certificate(peer_id=NODE.peer_id, region="local", expires_ms=expires_ms))


def in_session(**said: int) -> Voice:
    return Voice(PINS, permit(**said), incarnation=7, clock_ms=lambda: NOW, wall_ms=voices.wall_ms)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The machine's, in milliseconds: `wall` is off, `steady` starts anywhere."""
    now = {"wall": NOW + 5 * HOUR, "steady": 17}
    monkeypatch.setattr(voices, "wall_ms", lambda: now["wall"])
    monkeypatch.setattr(voices, "steady_ms", lambda: now["steady"])
    return now


def watcher(now_ms: int = NOW) -> Adverts:
    return Adverts(network="devnet", coordinator=COORDINATOR.public, steady_s=lambda: 0.0, clock_ms=lambda: now_ms)


def test_each_life_of_a_process_is_believed_after_the_one_before_it(tmp_path: Path, clocks: dict[str, int]) -> None:
    kept = KeptVoice(tmp_path / "certificate.json", PINS)
    voice = in_session()
    kept.keep(voice)
    takes = watcher().validator("qubix/devnet/offers/local")
    said = [voice.advert(OFFER), voice.advert(OFFER)]
    for _ in range(3):
        again = KeptVoice(tmp_path / "certificate.json", PINS).again()
        assert again is not None
        assert (again.licence, again.clock_ms()) == (voice.licence, NOW)
        said += [again.advert(OFFER), again.advert(OFFER)]
    assert [takes(NODE.peer_id, one) for one in said] == [True] * 8
    assert not any(takes(NODE.peer_id, one) for one in said), "recordings"


def test_it_ends_by_the_coordinators_clock_and_what_has_ended_is_not_taken_up(
    tmp_path: Path, clocks: dict[str, int]
) -> None:
    kept = KeptVoice(tmp_path / "certificate.json", PINS)
    kept.keep(in_session())
    again = kept.again()
    assert again is not None
    clocks["steady"] += HOUR
    assert again.certified
    clocks["steady"] += 1
    assert not again.certified
    clocks["wall"] += HOUR + 1
    assert kept.again() is None


def test_nothing_is_taken_up_that_others_would_not_believe(tmp_path: Path, clocks: dict[str, int]) -> None:
    path = tmp_path / "certificate.json"
    kept = KeptVoice(path, PINS)
    assert kept.again() is None, "there is none"
    kept.keep(in_session())
    assert KeptVoice(path, Pins(NODE, "devnet", MALLORY.public)).again() is None
    assert KeptVoice(path, Pins(MALLORY, "devnet", COORDINATOR.public)).again() is None
    whole = path.read_bytes()
    for damaged in (b"", whole[:40], b"{}", b"\xff" + whole, whole.replace(b'"lives":0', b'"lives":-1')):
        path.write_bytes(damaged)
        assert kept.again() is None
    path.write_bytes(whole)
    assert kept.again() is not None


def test_a_session_takes_no_certificate_of_others() -> None:
    with pytest.raises(NotCertified):
        Voice(PINS, permit(MALLORY), incarnation=7, clock_ms=lambda: NOW)
    voice = Voice(PINS, permit(), incarnation=7, clock_ms=lambda: NOW)
    before = voice.licence
    with pytest.raises(NotCertified):
        voice.certify(permit(expires_ms=NOW - 1))
    assert voice.licence == before
