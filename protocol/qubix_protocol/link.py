# SPDX-License-Identifier: Apache-2.0
"""Frames between a gateway and the coordinator, on one WebSocket: each WebSocket message is one MessagePack batch.

A gateway's words are about *connections*; what nodes say passes through as opaque, signed envelopes.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from qubix_protocol import codec
from qubix_protocol.messages import Digest, Millis, Peer, Short, Text
from qubix_protocol.units import FRAME_BYTES_MAX, GOSSIP_BYTES_MAX, LINK_MESSAGE_BYTES_MAX, Network

LINK_PATH = "/mesh/link"
Frame = Annotated[bytes, Meta(max_length=FRAME_BYTES_MAX)]


class LinkFrame(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="t"):
    """Base of the frames of this link."""


class LinkOpen(LinkFrame, frozen=True, kw_only=True, tag="open"):
    """Gateway → coordinator, first frame."""

    gateway_peer_id: Peer
    addresses: Annotated[tuple[Short, ...], Meta(max_length=16)]
    network: Network


class LinkReady(LinkFrame, frozen=True, kw_only=True, tag="ready"):
    """Coordinator → gateway, answers `LinkOpen`: subscribe to these gossip topics. Certificates are signed by
    `coordinator`; their time, and that of offers, is `clock_ms`."""

    network: Network
    coordinator: Digest
    clock_ms: Millis
    topics: Annotated[tuple[Short, ...], Meta(max_length=64)]


class PeerUp(LinkFrame, frozen=True, kw_only=True, tag="up"):
    """Gateway → coordinator: a node has a control stream open here. `address` is the IP address that it came from, as
    far as the gateway can tell; it is used to find the country and is not kept."""

    peer_id: Peer
    address: Annotated[str, Meta(max_length=64)] = ""


class PeerDown(LinkFrame, frozen=True, kw_only=True, tag="down"):
    peer_id: Peer


class FromPeer(LinkFrame, frozen=True, kw_only=True, tag="from"):
    """Gateway → coordinator: envelopes as the node sent them, in order."""

    peer_id: Peer
    frames: Annotated[tuple[Frame, ...], Meta(max_length=256)]


class Gossip(LinkFrame, frozen=True, kw_only=True, tag="gossip"):
    """Gateway → coordinator: one gossip message, its author as libp2p authenticated it."""

    author: Peer
    topic: Short
    data: Annotated[bytes, Meta(max_length=GOSSIP_BYTES_MAX)]


class ToPeer(LinkFrame, frozen=True, kw_only=True, tag="to"):
    """Coordinator → gateway: envelopes for a node."""

    peer_id: Peer
    frames: Annotated[tuple[Frame, ...], Meta(max_length=256)]


class Drop(LinkFrame, frozen=True, kw_only=True, tag="drop"):
    """Coordinator → gateway: close this node's stream."""

    peer_id: Peer
    reason: Text


FromGateway = LinkOpen | PeerUp | PeerDown | FromPeer | Gossip
ToGateway = LinkReady | ToPeer | Drop


class GatewayBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One WebSocket message from a gateway."""

    items: Annotated[tuple[FromGateway, ...], Meta(max_length=512)]


class CoordinatorBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One WebSocket message to a gateway."""

    items: Annotated[tuple[ToGateway, ...], Meta(max_length=512)]


def encode_gateway(items: tuple[FromGateway, ...]) -> bytes:
    return codec.encode(GatewayBatch(items))


def encode_coordinator(items: tuple[ToGateway, ...]) -> bytes:
    return codec.encode(CoordinatorBatch(items))


def decode_gateway(data: bytes) -> tuple[FromGateway, ...]:
    """Raises `TooLarge` or `Malformed`."""
    return codec.decode(data, GatewayBatch, limit_bytes=LINK_MESSAGE_BYTES_MAX).items


def decode_coordinator(data: bytes) -> tuple[ToGateway, ...]:
    """Raises `TooLarge` or `Malformed`."""
    return codec.decode(data, CoordinatorBatch, limit_bytes=LINK_MESSAGE_BYTES_MAX).items
