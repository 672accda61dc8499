# SPDX-License-Identifier: Apache-2.0
"""Seeded histories of honest nodes and of somebody who forges, records, repeats, delays and mislabels what they say."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from qubix_mesh.adverts import Adverts, Heard
from qubix_protocol.adverts import decode_advert, encode_advert
from qubix_protocol.keys import SigningKey
from qubix_protocol.units import OFFER_LIFE_MS, offers_topic
from tests.mesh.adverts_world import COORDINATOR, DAY_MS, REGION, START_MS, TOPIC, Speaker, certificate, offer, speaker

STEPS = 150
SEEDS_DAILY = range(8)
SEEDS_SLOW = range(8, 500)


@dataclass
class Said:
    """One advert of an honest node, as it left."""

    author: str
    device: str
    data: bytes
    sequence: tuple[int, int]
    expires_ms: int
    rate: int


@dataclass
class Listener:
    """`accepted` is what it believed, newest of each device."""

    adverts: Adverts
    accepted: dict[tuple[str, str], Heard] = field(default_factory=dict)


class History:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now_ms = START_MS
        self.nodes = [speaker(number, clock_ms=lambda: self.now_ms) for number in range(1, 6)]
        self.devices = {node.peer_id: [f"gpu-{n}" for n in range(self.chance.randint(1, 3))] for node in self.nodes}
        self.uncertified = speaker(50, clock_ms=lambda: self.now_ms)
        self.said: list[Said] = []
        self.listeners = [Listener(self._adverts(told)) for told in (True, True, False)]
        for node in self.nodes:
            for device in self.devices[node.peer_id]:
                self.deliver(self.say(node, device))

    def _adverts(self, told: bool) -> Adverts:
        """With the clock of a handshake, or with what is heard alone, and a clock of its own that is an hour off."""
        return Adverts(
            network="devnet",
            coordinator=COORDINATOR.public,
            steady_s=lambda: (self.now_ms - START_MS) / 1000 + 3600,
            clock_ms=lambda: self.now_ms if told else None,
        )

    def say(self, node: Speaker, device: str) -> Said:
        rate = self.chance.randint(0, 10**6)
        data = node.advert(offer(device, rate_qu_per_h=rate))
        said = Said(node.peer_id, device, data, (node.incarnation, node.counter), self.now_ms + OFFER_LIFE_MS, rate)
        self.said.append(said)
        return said

    def deliver(self, said: Said) -> None:
        """Something that an honest node did say, now or at any time before, to everybody."""
        for listener in self.listeners:
            key = (said.author, said.device)
            last = listener.accepted.get(key)
            newest = last is None or said.sequence > last.sequence
            fresh = self.now_ms <= said.expires_ms
            accepted = self._offer(listener, TOPIC, said.author, said.data)
            assert accepted == (newest and fresh), (said.sequence, last and last.sequence, fresh)

    def attack(self, topic: str, author: str, data: bytes) -> None:
        """What nobody honest said in this way: nobody may believe it."""
        for listener in self.listeners:
            assert not self._offer(listener, topic, author, data)

    def _offer(self, listener: Listener, topic: str, author: str, data: bytes) -> bool:
        def heard(one: Heard) -> None:
            listener.accepted[one.peer_id, one.offer.device.device_id] = one

        return listener.adverts.validator(topic, heard)(author, data)

    def step(self) -> None:
        self.chance.choice(MOVES)(self)

    # What happens ---------------------------------------------------------------------------------------------------

    def honest_word(self) -> None:
        node = self.chance.choice(self.nodes)
        self.deliver(self.say(node, self.chance.choice(self.devices[node.peer_id])))

    def honest_words_reordered(self) -> None:
        node = self.chance.choice(self.nodes)
        words = [self.say(node, self.chance.choice(self.devices[node.peer_id])) for _ in range(3)]
        self.chance.shuffle(words)
        for word in words:
            self.deliver(word)

    def time_passes(self) -> None:
        self.now_ms += self.chance.choice((100, 5_000, 30_000, 90_000))

    def restart(self) -> None:
        self.chance.choice(self.nodes).restart()

    def renewal(self) -> None:
        node = self.chance.choice(self.nodes)
        node.certify(self.now_ms + DAY_MS)

    def replay(self) -> None:
        for _ in range(3):
            self.deliver(self.chance.choice(self.said))

    def tamper(self) -> None:
        said = self.chance.choice(self.said)
        data = bytearray(said.data)
        data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
        self.attack(TOPIC, said.author, bytes(data))

    def steal(self) -> None:
        """Another's signed words under the thief's own name, with either's certificate."""
        said = self.chance.choice(self.said)
        thief = self.chance.choice([node for node in self.nodes if node.peer_id != said.author])
        words = decode_advert(said.data)
        for permit in (words.certificate, thief.certificate):
            self.attack(TOPIC, thief.peer_id, encode_advert(permit, words.offer))

    def forge(self) -> None:
        """Signed by somebody else in a node's name."""
        victim, key = self.chance.choice(self.nodes), SigningKey(self.chance.randbytes(32))
        data = victim.advert(offer(self.chance.choice(self.devices[victim.peer_id])), key=key)
        self.attack(TOPIC, victim.peer_id, data)

    def without_certificate(self) -> None:
        """A node that signs its own certificate, or borrows one."""
        node = self.uncertified
        own = certificate(node.peer_id, expires_ms=self.now_ms + DAY_MS, key=node.key)
        for permit in (own, self.chance.choice(self.nodes).certificate, b""):
            self.attack(TOPIC, node.peer_id, node.advert(certificate=permit))

    def elsewhere(self) -> None:
        node = self.chance.choice(self.nodes)
        self.attack(TOPIC, node.peer_id, node.advert(network=self.chance.choice(("test", "main"))))
        self.attack(offers_topic("devnet", "eu"), node.peer_id, node.advert())
        self.attack(TOPIC, node.peer_id, node.advert(offer(region="eu")))

    def outdated_certificate(self) -> None:
        node = self.chance.choice(self.nodes)
        over = certificate(node.peer_id, expires_ms=self.now_ms - 10_000, incarnation=node.incarnation)
        self.attack(TOPIC, node.peer_id, node.advert(certificate=over))

    def made_up_session(self) -> None:
        node = self.chance.choice(self.nodes)
        self.attack(TOPIC, node.peer_id, node.advert(incarnation=node.incarnation + 1000))


MOVES: tuple[Callable[[History], None], ...] = (
    History.honest_word,
    History.honest_word,
    History.honest_words_reordered,
    History.time_passes,
    History.restart,
    History.renewal,
    History.replay,
    History.tamper,
    History.steal,
    History.forge,
    History.without_certificate,
    History.elsewhere,
    History.outdated_certificate,
    History.made_up_session,
)


def play(seed: int) -> None:
    history = History(seed)
    for _ in range(STEPS):
        history.step()
    newest = {}
    for node in history.nodes:
        for device in history.devices[node.peer_id]:
            last = history.say(node, device)
            history.deliver(last)
            newest[node.peer_id, device] = last.rate
    for listener in history.listeners:
        shown = {key: heard.offer.rate_qu_per_h for key, heard in listener.accepted.items()}
        assert shown == newest
        assert all(heard.offer.region == REGION for heard in listener.accepted.values())


@pytest.mark.parametrize("seed", SEEDS_DAILY)
def test_p3_no_advert_is_believed_wrongly_and_every_honest_newest_one_is(seed: int) -> None:
    play(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS_SLOW)
def test_p3_no_advert_is_believed_wrongly_in_500_histories(seed: int) -> None:
    play(seed)
