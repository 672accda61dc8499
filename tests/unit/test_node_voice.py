# SPDX-License-Identifier: Apache-2.0
"""A node that starts again without a coordinator goes on offering under the certificate that it kept (trust P3, P5)."""

import dataclasses
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from qubix_mesh.adverts import Adverts, Heard
from qubix_mesh.fake import FakeNetwork, open_fake_mesh
from qubix_node import voice as voices
from qubix_node.offers import rules
from qubix_node.offers.publish import Publisher
from qubix_node.voice import KeptVoice, Pins, Voice
from qubix_protocol.envelope import ANYONE, Sealer
from qubix_protocol.errors import NotCertified
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Certificate, Device, Offer
from qubix_protocol.states import Availability, DeviceKind, Isolation

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


@pytest.mark.trio
async def test_offers_are_said_again_within_thirty_seconds_and_at_once_when_they_change(
    tmp_path: Path, clocks: dict[str, int], autojump_clock: MockClock
) -> None:
    state = rules.State(
        device=DEVICE, rate_qu_per_h=10, region="local", rates=(), jobs_parallel=1, isolation=Isolation.BOX,
        busy=0, draining=False, gone=False, sample=None,
    )  # fmt: skip
    KeptVoice(tmp_path / "certificate.json", PINS).keep(in_session())
    said: list[tuple[float, int]] = []
    takes = Adverts(network="devnet", coordinator=COORDINATOR.public, steady_s=trio.current_time, clock_ms=lambda: NOW)

    def hear(heard: Heard) -> None:
        said.append((trio.current_time(), heard.offer.rate_qu_per_h))

    network, topic = FakeNetwork(1), "qubix/devnet/offers/local"
    async with open_fake_mesh(network, b"n" * 32) as mouth, open_fake_mesh(network, b"w" * 32) as ear:
        await ear.connect(mouth.addresses[0], timeout_s=5)
        publisher = Publisher(mouth, "devnet", lambda _: [state], KeptVoice(tmp_path / "certificate.json", PINS))
        async with ear.subscribe(topic, takes.validator(topic, hear), capacity=8), trio.open_nursery() as nursery:
            assert await publisher.go_on() is not None
            nursery.start_soon(publisher.run)
            await trio.sleep(300)
            times = [at_s for at_s, _ in said]
            gaps = [later - earlier for earlier, later in zip(times, [*times[1:], trio.current_time()], strict=True)]
            assert len(times) >= 10
            assert max(gaps) <= 30 + rules.CHANGE_S_MIN
            state = dataclasses.replace(state, rate_qu_per_h=11)
            changed_s = trio.current_time()
            publisher.changed()
            await trio.sleep(1)
            since = [(at_s, rate) for at_s, rate in said if at_s >= changed_s]
            assert since[0][0] <= changed_s + rules.CHANGE_S_MIN
            # A round may have been due in this very second.
            assert len(since) <= 2
            assert {rate for _, rate in since} == {11}
            nursery.cancel_scope.cancel()
