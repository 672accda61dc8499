# SPDX-License-Identifier: Apache-2.0
"""Frames of a browser tab's own WebSocket to the coordinator (docs/adr/0032).

A tab says the same signed statements as any node. No gateway stands between, so nothing is wrapped for one: each
WebSocket message to the coordinator is one of these frames, and each message to the tab is one whole envelope.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from qubix_protocol import codec
from qubix_protocol.messages import Peer
from qubix_protocol.units import GOSSIP_BYTES_MAX, Network

BROWSER_PATH: Final = "/api/v1/browser-node"
STATEMENT_BYTES_MAX: Final = 64 * 1024
_MESSAGE_BYTES_MAX: Final = STATEMENT_BYTES_MAX + 1024
TAKEN_OVER: Final = 4001
"""The WebSocket is closed with this code when a newer session of the same key speaks for it."""
NO_EXCHANGE: Final = bytes(32)
"""In Challenge and Hello of a session that nothing but TLS hides. No gateway's session can be made with it: with this
key nothing can be agreed (`channel.Exchange.channel`)."""


class BrowserFrame(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="t"):
    """Base of what a tab sends."""


class BrowserOpen(BrowserFrame, frozen=True, kw_only=True, tag="open"):
    """First frame: whose key will sign, and for which network. Nothing proves it yet."""

    peer_id: Peer
    network: Network


class BrowserSay(BrowserFrame, frozen=True, kw_only=True, tag="say"):
    """A statement to the coordinator."""

    statement: Annotated[bytes, Meta(max_length=STATEMENT_BYTES_MAX)]


class BrowserOffer(BrowserFrame, frozen=True, kw_only=True, tag="offer"):
    """What a node would gossip (`adverts`)."""

    advert: Annotated[bytes, Meta(max_length=GOSSIP_BYTES_MAX)]


FromBrowser = BrowserOpen | BrowserSay | BrowserOffer


def encode(frame: FromBrowser) -> bytes:
    return codec.encode(frame)


def decode(data: bytes) -> FromBrowser:
    """Raises `TooLarge` or `Malformed`."""
    frame: FromBrowser = codec.decode(data, FromBrowser, limit_bytes=_MESSAGE_BYTES_MAX)  # type: ignore[arg-type]
    return frame
