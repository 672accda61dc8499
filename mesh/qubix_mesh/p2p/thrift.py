# SPDX-License-Identifier: Apache-2.0
"""Half of what a gossip message costs in libp2p 0.8.1 buys nothing: that half is saved here. The wire stays the same.

Each message carries its sender's signed address record, which is parsed and verified anew each time, and put together
anew for each that is sent; lengths are read byte by byte, each through every layer. A record that is the same as the
last one of that peer was verified then; our own changes with our addresses alone.
"""

from collections.abc import Iterable
from typing import Any, Final
from weakref import WeakKeyDictionary

from libp2p.peer import peerstore
from libp2p.pubsub import gossipsub, pubsub
from libp2p.pubsub import utils as pubsub_utils

_PEERS_MAX: Final = 4096
_AT_ONCE: Final = 64 * 1024
_verified: "WeakKeyDictionary[Any, dict[Any, bytes]]" = WeakKeyDictionary()
_own: "WeakKeyDictionary[Any, tuple[tuple[Any, ...], bytes]]" = WeakKeyDictionary()
_consume: Final = pubsub_utils.maybe_consume_signed_record
_issue: Final = peerstore.env_to_send_in_RPC


def save_work() -> None:
    """For the whole process; safe to call again."""
    modules: Iterable[Any] = (pubsub, gossipsub)
    for module in modules:
        module.maybe_consume_signed_record = consume_once
        module.env_to_send_in_RPC = issue_once


def consume_once(message: Any, host: Any, peer_id: Any) -> bool:
    """As libp2p's own, for a record that is another one than this peer's last."""
    if not message.HasField("senderRecord"):
        return bool(_consume(message, host, peer_id))
    known = _verified.setdefault(host, {})
    record = bytes(message.senderRecord)
    if known.get(peer_id) == record:
        return True
    good = bool(_consume(message, host, peer_id))
    if good:
        if len(known) >= _PEERS_MAX:
            known.clear()
        known[peer_id] = record
    return good


def issue_once(host: Any) -> tuple[bytes, bool]:
    """As libp2p's own, anew when the host's addresses are others."""
    addresses = tuple(host.get_addrs())
    kept = _own.get(host)
    if kept is not None and kept[0] == addresses:
        return kept[1], False
    record, new = _issue(host)
    _own[host] = addresses, record
    return record, new


class Buffered:
    """A stream of libp2p that asks for many bytes at once, and hands out as few as it is asked for."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self, most: int) -> bytes:
        """1 to `most` bytes, or none at the end."""
        if not self._held:
            self._held = await self._stream.read(_AT_ONCE)
        given, self._held = self._held[:most], self._held[most:]
        return given
