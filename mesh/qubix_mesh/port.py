# SPDX-License-Identifier: Apache-2.0
"""The mesh as the rest of QUBIX sees it. `host` (libp2p) and `fake` (in memory, seeded) both implement it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

StreamHandler = Callable[["Stream"], Awaitable[None]]
"""Owns the stream it is given: when it returns the stream is closed, when it raises the stream is aborted."""

Validator = Callable[[str, bytes], bool]
"""(author's peer id, data) → keep and pass on. One that raises counts as False."""


@dataclass(frozen=True, slots=True)
class GossipMessage:
    """`author` signed the message (checked); whoever passed it on is of no account."""

    author: str
    topic: str
    data: bytes


@dataclass(slots=True)
class Counters:
    """What a mesh refused or lost since it started, by kind; never reset."""

    gossip_invalid: int = 0
    gossip_overflow: int = 0
    validator_failed: int = 0
    handler_failed: int = 0
    hostile: int = 0
    dials_failed: int = 0
    extra: dict[str, int] = field(default_factory=dict)


class Stream(Protocol):
    """Frames in order over one authenticated connection: a length of 4 bytes, big-endian, then that many bytes."""

    @property
    def peer_id(self) -> str:
        """The other side, proved by its key."""
        ...

    async def send(self, frame: bytes, *, timeout_s: float) -> None:
        """Hand over one whole frame; safe from several tasks.

        Raises `StreamClosed` or `MeshTimeout`. A frame cut short, by deadline or cancellation, aborts the stream.
        """
        ...

    async def receive(self, *, limit_bytes: int, timeout_s: float | None) -> bytes:
        """The next frame. Raises `StreamClosed`, `FrameTooLarge` (which aborts the stream), or `MeshTimeout`.

        After a timeout or a cancellation nothing is lost: the next call goes on where this one stopped.
        """
        ...

    async def close(self) -> None:
        """Say that nothing follows: what was sent still arrives. Never raises."""
        ...

    async def abort(self) -> None:
        """Drop the stream at once, both ways. Never raises."""
        ...


class Subscription(Protocol):
    """The accepted messages of one topic, except our own; the newest are kept on overflow."""

    @property
    def dropped(self) -> int:
        """Messages pushed out by newer ones."""
        ...

    def __aiter__(self) -> AsyncIterator[GossipMessage]: ...


class Mesh(Protocol):
    @property
    def peer_id(self) -> str:
        """Base58, made from the Ed25519 seed."""
        ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where others can dial us: multiaddrs ending in /p2p/<peer id>."""
        ...

    @property
    def counters(self) -> Counters: ...

    def on_stream(self, protocol: str, handler: StreamHandler) -> None:
        """Answer streams of this protocol. One handler a protocol; a later call replaces it."""
        ...

    async def open_stream(self, peer_id: str, protocol: str, *, timeout_s: float) -> Stream:
        """A stream over a connection that stands. Raises `NotConnected`, `StreamClosed` (refused), `MeshTimeout`."""
        ...

    async def connect(self, address: str, *, timeout_s: float) -> str:
        """Dial once unless connected; the peer id. Raises `BadAddress` or `DialFailed`."""
        ...

    async def keep_connected(self, address: str) -> None:
        """Dial, watch, dial again with backoff and jitter; runs until cancelled. Raises `BadAddress` at once."""
        ...

    async def disconnect(self, peer_id: str) -> None:
        """Close every connection to the peer. Never raises."""
        ...

    def connected(self) -> frozenset[str]: ...

    def remote_ip(self, peer_id: str) -> str:
        """The IP address that a connected peer has at this end; "" when there is none to tell."""
        ...

    async def wait_connected(self, peer_id: str) -> None: ...

    async def wait_disconnected(self, peer_id: str) -> None:
        """Returns when no connection to the peer stands: closed, broken, or silent for some seconds."""
        ...

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip to whoever subscribed; no need to be subscribed oneself. Best effort. Raises `FrameTooLarge`."""
        ...

    def subscribe(
        self, topic: str, validator: Validator, *, capacity: int
    ) -> AbstractAsyncContextManager[Subscription]:
        """Take part in a topic: validated messages are passed on to others and queued here. `AlreadySubscribed`."""
        ...
