# SPDX-License-Identifier: Apache-2.0
"""Trust P3: which adverts are believed, one wrong thing at a time."""

from collections.abc import Callable

import pytest
import trio

from qubix_mesh.adverts import Adverts, Heard, HeardClock
from qubix_protocol.errors import ProtocolError
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Refused
from qubix_protocol.units import DEVICES_MAX, OFFER_LIFE_MS
from tests.mesh.adverts_world import (
    DAY_MS,
    START_MS,
    TOPIC,
    Speaker,
    certificate,
    coordinator_ms,
    judge,
    offer,
    speaker,
)

pytestmark = pytest.mark.trio
Wrong = Callable[[Speaker], bytes]


async def test_p3_a_certified_nodes_offer_is_believed_as_it_was_said(autojump_clock: object) -> None:
    node, adverts = speaker(1), judge()
    heard = adverts.judge(TOPIC, node.peer_id, node.advert(offer(rate_qu_per_h=7)))
    assert (heard.peer_id, heard.offer, heard.sequence) == (node.peer_id, offer(rate_qu_per_h=7), (1, 1))
    assert (heard.expires_ms, heard.certified_until_ms) == (START_MS + OFFER_LIFE_MS, START_MS + DAY_MS)
    assert heard.certified
    assert not heard.stale


def _certificate(node: Speaker, **wrong: object) -> bytes:
    given = {"expires_ms": coordinator_ms() + DAY_MS, **wrong}
    return certificate(str(given.pop("peer_id", node.peer_id)), **given)  # type: ignore[arg-type]


REFUSED: dict[str, tuple[Wrong, str]] = {
    "nonsense": (lambda node: b"\xc1 junk", "malformed"),
    "too large": (lambda node: bytes(16 * 1024 + 1), "too_large"),
    "a bare offer without a certificate": (lambda node: node.envelope(offer()), "malformed"),
    "an empty certificate": (lambda node: node.advert(certificate=b""), "not_certified"),
    "a certificate signed by another": (
        lambda node: node.advert(certificate=_certificate(node, key=SigningKey(b"x" * 32))),
        "not_certified",
    ),
    "a certificate signed by the node itself": (
        lambda node: node.advert(certificate=_certificate(node, key=node.key)),
        "not_certified",
    ),
    "another node's certificate": (
        lambda node: node.advert(certificate=_certificate(node, peer_id=speaker(9).peer_id)),
        "not_certified",
    ),
    "a certificate of another network": (
        lambda node: node.advert(certificate=_certificate(node, network="main")),
        "not_certified",
    ),
    "a certificate for one reader": (
        lambda node: node.advert(certificate=_certificate(node, audience=b"y" * 32)),
        "not_certified",
    ),
    "a certificate of another session": (
        lambda node: node.advert(certificate=_certificate(node, incarnation=2)),
        "not_certified",
    ),
    "a certificate that expired": (
        lambda node: node.advert(certificate=_certificate(node, expires_ms=coordinator_ms() - 1)),
        "not_certified",
    ),
    "a certificate for another region": (
        lambda node: node.advert(certificate=_certificate(node, region="eu")),
        "wrong_region",
    ),
    "an offer of another region": (lambda node: node.advert(offer(region="eu")), "wrong_region"),
    "an offer of another network": (lambda node: node.advert(network="main"), "wrong_network"),
    "an offer for one reader": (lambda node: node.advert(audience=b"y" * 32), "wrong_audience"),
    "an offer that expired": (lambda node: node.advert(expires_ms=coordinator_ms() - 1), "expired"),
    "an offer that lasts too long": (lambda node: node.advert(expires_ms=coordinator_ms() + 10**7), "expired"),
    "an offer signed by another": (lambda node: node.advert(key=SigningKey(b"x" * 32)), "bad_signature"),
    "what is no offer": (lambda node: node.advert(Refused(code="x", detail="y")), "malformed"),
}


@pytest.mark.parametrize("name", list(REFUSED))
async def test_p3_what_is_wrong_in_one_way_is_refused_for_it_and_the_right_one_still_believed(
    name: str, autojump_clock: object
) -> None:
    make, code = REFUSED[name]
    node, heard = speaker(1), list[Heard]()
    adverts = judge()
    accepts = adverts.validator(TOPIC, heard.append)
    assert not accepts(node.peer_id, make(node))
    assert dict(adverts.counts) == {f"gossip_{code}": 1}
    assert accepts(node.peer_id, node.advert())
    assert [one.peer_id for one in heard] == [node.peer_id]


async def test_p3_a_flipped_bit_anywhere_is_refused(autojump_clock: object) -> None:
    node = speaker(1)
    good = node.advert()
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1
        with pytest.raises(ProtocolError):
            judge().judge(TOPIC, node.peer_id, bytes(bad))


async def test_p3_what_one_node_said_is_not_anothers(autojump_clock: object) -> None:
    node, thief = speaker(1), speaker(2)
    adverts = judge()
    assert not adverts.validator(TOPIC)(thief.peer_id, node.advert())
    assert dict(adverts.counts) == {"gossip_bad_signature": 1}


async def test_p3_replayed_and_reordered_adverts_are_dropped_for_each_device_by_itself(autojump_clock: object) -> None:
    node, adverts = speaker(1), judge()
    accepts = adverts.validator(TOPIC)
    a1, b1, a2 = (node.advert(offer(one)) for one in ("a", "b", "a"))
    assert accepts(node.peer_id, a2)
    assert accepts(node.peer_id, b1), "said earlier, and the newest of its own device"
    assert not accepts(node.peer_id, a1)
    assert not accepts(node.peer_id, a2)
    old = node.advert(offer("a"))
    node.restart()
    assert accepts(node.peer_id, node.advert(offer("a")))
    assert not accepts(node.peer_id, old), "of a session that is over"
    assert dict(adverts.counts) == {"gossip_replayed": 3}


async def test_p3_what_is_forgotten_has_expired(autojump_clock: object) -> None:
    node, adverts = speaker(1), judge()
    accepts = adverts.validator(TOPIC)
    first = [node.advert(offer(str(number))) for number in range(DEVICES_MAX)]
    assert all(accepts(node.peer_id, advert) for advert in first)
    assert not accepts(node.peer_id, node.advert(offer("one more")))
    await trio.sleep(OFFER_LIFE_MS / 1000 + 1)
    assert accepts(node.peer_id, node.advert(offer("one more")))
    assert not any(accepts(node.peer_id, advert) for advert in first)
    assert adverts.counts["gossip_expired"] == DEVICES_MAX


async def test_p3_an_author_who_says_too_much_is_not_heard_and_others_are(autojump_clock: object) -> None:
    loud, other, adverts = speaker(1), speaker(2), judge(per_s=1, burst=5)
    accepts = adverts.validator(TOPIC)
    assert [accepts(loud.peer_id, loud.advert()) for _ in range(7)] == [True] * 5 + [False] * 2
    assert accepts(other.peer_id, other.advert())
    await trio.sleep(1)
    assert accepts(loud.peer_id, loud.advert())
    assert dict(adverts.counts) == {"gossip_too_fast": 2}


async def test_p3_saying_again_what_a_node_said_does_not_use_up_its_word(autojump_clock: object) -> None:
    node, adverts = speaker(1), judge(per_s=0.01, burst=2)
    accepts = adverts.validator(TOPIC)
    first = node.advert()
    assert accepts(node.peer_id, first)
    assert not any(accepts(node.peer_id, first) for _ in range(50))
    assert accepts(node.peer_id, node.advert())


async def test_p3_a_certificate_is_checked_once(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = []

    def counted(raw: bytes, **how: object) -> object:
        checks.append(raw)
        return read(raw, **how)

    from qubix_mesh import adverts as module

    read = module.read_certificate
    monkeypatch.setattr(module, "read_certificate", counted)
    node, adverts = speaker(1), judge()
    assert all(adverts.validator(TOPIC)(node.peer_id, node.advert()) for _ in range(20))
    assert checks == [node.certificate]
    node.certify(coordinator_ms() + 2 * DAY_MS)
    assert adverts.validator(TOPIC)(node.peer_id, node.advert())
    assert checks[1:] == [node.certificate]


async def test_the_clock_is_heard_from_the_adverts_and_one_liar_does_not_move_it(autojump_clock: object) -> None:
    adverts = judge(clock_ms=lambda: None)
    accepts = adverts.validator(TOPIC)
    assert adverts.now_ms() is None
    liar = speaker(9, clock_ms=lambda: coordinator_ms() + 7_200_000)
    accepts(liar.peer_id, liar.advert())
    honest = [speaker(number) for number in range(1, 4)]
    for node in honest:
        accepts(node.peer_id, node.advert())
    assert adverts.now_ms() == coordinator_ms()
    assert all(accepts(node.peer_id, node.advert()) for node in honest)
    old = honest[0].advert()
    await trio.sleep(OFFER_LIFE_MS / 1000 + 1)
    assert not accepts(honest[0].peer_id, old)


async def test_the_heard_clock_goes_by_the_least_delayed_word_of_each(autojump_clock: object) -> None:
    clock = HeardClock(trio.current_time)
    clock.hear("a", START_MS + OFFER_LIFE_MS)
    await trio.sleep(20)
    clock.hear("a", START_MS + OFFER_LIFE_MS + 5_000)
    assert clock.now_ms() == START_MS + 20_000


@pytest.mark.parametrize("wrong_ms", [-3_600_000, 3_600_000])
async def test_a_told_clock_wins_over_what_is_heard(wrong_ms: int, autojump_clock: object) -> None:
    wrong = speaker(1, clock_ms=lambda: coordinator_ms() + wrong_ms)
    adverts: Adverts = judge()
    assert not adverts.validator(TOPIC)(wrong.peer_id, wrong.advert())
    assert dict(adverts.counts) == {"gossip_expired": 1}
