# SPDX-License-Identifier: Apache-2.0
"""Backoff, rates, frame lengths, queues, addresses and the peer book: pure, so told without a network."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_mesh.addresses import parse_listen, parse_peer
from qubix_mesh.errors import BadAddress, FrameTooLarge
from qubix_mesh.peerbook import AGE_S_MAX, PEERS_MAX, PeerBook
from qubix_mesh.queues import NewestQueue
from qubix_mesh.rules import Rates, TokenBucket, backoff_s, frame_header, frame_length
from qubix_protocol.keys import SigningKey


def peer(number: int) -> str:
    return SigningKey(number.to_bytes(32, "big")).peer_id


def address(number: int, port: int = 4001) -> str:
    return f"/ip4/203.0.113.7/tcp/{port}/p2p/{peer(number)}"


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_backoff_grows_to_its_bound_and_is_spread(failures: int, chance: float) -> None:
    wait_s = backoff_s(failures, chance, first_s=0.25, max_s=15)
    full_s = min(0.25 * 2 ** min(failures, 32), 15)
    assert full_s / 2 <= wait_s <= full_s


def test_a_frame_length_is_judged_by_its_limit() -> None:
    assert frame_length(frame_header(10), 10) == 10
    with pytest.raises(FrameTooLarge):
        frame_length(frame_header(11), 10)
    with pytest.raises(FrameTooLarge):
        frame_length((2**31).to_bytes(4, "big"), 2**20)
    with pytest.raises(FrameTooLarge):
        frame_header(2**32)


@given(st.lists(st.floats(0, 2), max_size=200))
def test_a_bucket_never_passes_more_than_its_rate_and_burst(gaps: list[float]) -> None:
    now_s, passed = 0.0, 0
    bucket = TokenBucket.full(3.0, 5.0, now_s)
    for gap in gaps:
        now_s += gap
        passed += bucket.take(now_s)
    assert passed <= 5.0 + 3.0 * now_s + 1e-6


def test_a_clock_that_goes_back_earns_nothing() -> None:
    bucket = TokenBucket.full(1.0, 1.0, 100.0)
    assert bucket.take(100.0)
    assert not bucket.take(50.0)
    assert bucket.take(101.0)


def test_names_are_limited_one_by_one_and_in_number() -> None:
    rates = Rates(1.0, 2.0, names_max=2)
    assert [rates.allow("a", 0.0) for _ in range(3)] == [True, True, False]
    assert rates.allow("b", 0.0)
    assert not rates.allow("c", 0.0), "no room while both names are busy"
    assert rates.allow("c", 10.0), "names that are quiet again make room"
    assert len(rates) <= 2


def test_a_full_queue_keeps_the_newest() -> None:
    queue: NewestQueue[int] = NewestQueue(3)
    assert [queue.put(number) for number in range(5)] == [True, True, True, False, False]
    assert queue.take_all() == [2, 3, 4]
    assert queue.dropped == 2


def test_addresses_are_taken_apart() -> None:
    parsed = parse_peer(address(1))
    assert (parsed.peer_id, parsed.transport) == (peer(1), "/ip4/203.0.113.7/tcp/4001")
    assert str(parsed) == address(1)
    assert parse_peer(f"/dns4/gateway.example/tcp/4001/p2p/{peer(1)}").transport == "/dns4/gateway.example/tcp/4001"
    assert parse_listen("/ip4/0.0.0.0/tcp/0") == "/ip4/0.0.0.0/tcp/0"


@pytest.mark.parametrize("host", ["/ip6/::1", "/ip6/2001:db8::7", "/dns6/gateway.example", "/dns/gateway.example"])
def test_addresses_of_ipv6_and_names_are_taken_apart(host: str) -> None:
    parsed = parse_peer(f"{host}/tcp/4001/p2p/{peer(1)}")
    assert (parsed.peer_id, parsed.transport) == (peer(1), f"{host}/tcp/4001")
    assert parse_listen(f"{host}/tcp/0") == f"{host}/tcp/0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        "/ip4/1.2.3.4",
        "/ip4/999.1.1.1/tcp/1/p2p/" + peer(1),
        "/ip4/1.2.3.4/tcp/70000/p2p/" + peer(1),
        "/ip4/1.2.3.4/udp/1/quic-v1/p2p/" + peer(1),
        "/ip4/1.2.3.4/tcp/1/ws/p2p/" + peer(1),
        "/ip4/1.2.3.4/tcp/1/p2p/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
        "/ip4/1.2.3.4/tcp/1/p2p/" + peer(1) + "/p2p-circuit",
        "/ip4/1.2.3.4/tcp/1" * 100,
        "http://1.2.3.4:80",
    ],
)
def test_bad_addresses_are_named(text: str) -> None:
    with pytest.raises(BadAddress, match=r"/ip4/203\.0\.113\.7|Ed25519|too long"):
        parse_peer(text)


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_a_bad_address(text: str) -> None:
    try:
        parse_peer(text)
    except BadAddress:
        return
    assert "/p2p/" in text


def test_the_book_remembers_the_newest_first_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "new" / "peers.json"
    book = PeerBook(path)
    for number in range(1, PEERS_MAX + 10):
        book.remember(address(number))
    book.remember(address(20, port=5))
    kept = PeerBook(path).remembered()
    assert kept[0] == address(20, port=5)
    assert kept[1] == address(PEERS_MAX + 9)
    assert len(kept) == PEERS_MAX
    assert [entry.name for entry in path.parent.iterdir()] == ["peers.json"]


def test_bootstrap_comes_before_memory_and_each_peer_once(tmp_path: Path) -> None:
    book = PeerBook(tmp_path / "peers.json")
    book.remember(address(1))
    book.remember(address(2))
    assert book.to_dial([address(1, port=9), address(3)]) == (address(1, port=9), address(3), address(2))
    with pytest.raises(BadAddress):
        book.to_dial(["nonsense"])


@pytest.mark.parametrize("content", ["", "{", "{}", "[1]", '["nonsense"]', "[" * 100_000])
def test_a_damaged_book_is_an_empty_one(tmp_path: Path, content: str) -> None:
    path = tmp_path / "peers.json"
    path.write_text(content)
    book = PeerBook(path, lambda: 1_000.0)
    assert book.remembered() == ()
    book.remember(address(1))
    assert json.loads(path.read_text()) == [{"address": address(1), "seen_s": 1_000}]


def test_addresses_that_did_not_answer_for_a_month_are_forgotten(tmp_path: Path) -> None:
    path, now_s = tmp_path / "peers.json", 1_000_000.0
    book = PeerBook(path, lambda: now_s)
    book.remember(address(1))
    now_s += AGE_S_MAX / 2
    book.remember(address(2))
    assert PeerBook(path, lambda: now_s).remembered() == (address(2), address(1))
    now_s += AGE_S_MAX / 2 + 1
    assert PeerBook(path, lambda: now_s).remembered() == book.remembered() == (address(2),)
    assert book.to_dial([]) == (address(2),)
    book.remember(address(2))
    now_s += AGE_S_MAX - 1
    assert book.remembered() == (address(2),), "it answered again"


def test_bare_addresses_and_times_to_come_count_as_now(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    path.write_text(json.dumps([address(1), {"address": address(2), "seen_s": 9_000_000_000}]))
    book = PeerBook(path, lambda: 1_000.0)
    assert book.remembered() == (address(1), address(2))
    book.remember(address(3))
    assert {entry["seen_s"] for entry in json.loads(path.read_text())} == {1_000}
