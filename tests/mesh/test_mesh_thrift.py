# SPDX-License-Identifier: Apache-2.0
"""Work that libp2p's gossip is spared: records are verified once, and never less than once."""

from typing import Any

import pytest

from qubix_mesh.host import open_mesh
from qubix_mesh.p2p import thrift
from tests.mesh.mesh_world import repeat_until, seed


def test_it_stands_where_libp2p_looks() -> None:
    """A newer libp2p that looks elsewhere must not pass in silence."""
    thrift.save_work()
    for module in (thrift.pubsub, thrift.gossipsub):
        names: Any = module
        assert names.maybe_consume_signed_record is thrift.consume_once
        assert names.env_to_send_in_RPC is thrift.issue_once
    assert thrift.pubsub_utils.maybe_consume_signed_record is not thrift.consume_once
    assert thrift.peerstore.env_to_send_in_RPC is not thrift.issue_once


@pytest.mark.trio
async def test_a_peers_record_is_verified_when_it_is_another_one_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []

    def counted(message: Any, host: Any, peer_id: Any) -> bool:
        checked.append(bytes(message.senderRecord))
        return verify(message, host, peer_id)

    verify = thrift._consume
    monkeypatch.setattr(thrift, "_consume", counted)
    async with open_mesh(seed(1)) as one, open_mesh(seed(2)) as other:
        got: list[bytes] = []
        said: list[bytes] = []

        def take(_: str, data: bytes) -> bool:
            got.append(data)
            return True

        async def say() -> None:
            said.append(b"%d" % len(said))
            await other.publish("t", said[-1])

        async with one.subscribe("t", take, capacity=4):
            await other.connect(one.addresses[0], timeout_s=10)
            await repeat_until(say, lambda: len(got) >= 10)
        assert len(set(got)) == len(got), "each once"
        assert set(got) <= set(said)
        # Each side's one record, though some messages may be checked at the same moment.
        assert 1 <= len(set(checked)) <= 2
        assert len(checked) <= 6
        host: Any = one._host  # type: ignore[attr-defined]
        peer = next(iter(thrift._verified[host]))
        forged = thrift.pubsub.rpc_pb2.RPC(senderRecord=b"forged")
        before = len(checked)
        assert [thrift.consume_once(forged, host, peer) for _ in range(2)] == [False, False]
        assert len(checked) == before + 2, "what was refused is not remembered"
        good = thrift.pubsub.rpc_pb2.RPC(senderRecord=thrift._verified[host][peer])
        assert thrift.consume_once(good, host, peer)
        assert len(checked) == before + 2
        stranger = type(peer)(b"\x00" * 38)
        assert not thrift.consume_once(good, host, stranger), "another's record is nobody else's"


class Pieces:
    """Gives what it has in pieces, however much is asked for."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces, self.asked, self.mark = list(pieces), list[int](), "kept"

    async def read(self, most: int) -> bytes:
        self.asked.append(most)
        return self.pieces.pop(0) if self.pieces else b""


@pytest.mark.trio
async def test_bytes_come_out_in_order_and_the_end_is_the_end() -> None:
    inner = Pieces(b"abc", b"d", b"efgh")
    stream = thrift.Buffered(inner)
    assert [await stream.read(most) for most in (1, 1, 5, 5, 2, 9)] == [b"a", b"b", b"c", b"d", b"ef", b"gh"]
    assert await stream.read(4) == b""
    assert inner.asked == [thrift._AT_ONCE] * 4
    assert stream.mark == "kept"
