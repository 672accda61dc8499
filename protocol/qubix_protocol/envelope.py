# SPDX-License-Identifier: Apache-2.0
"""The signed envelope around every statement (trust P1, P2).

On the wire: MessagePack `[signed, signature]`. `signed` is itself MessagePack of
`[version, network, type, sender, audience, incarnation, counter, expires_ms, body]` and is what the signature covers,
after a constant prefix, byte for byte as sent: nothing is re-encoded before it is verified.
"""

from collections.abc import Callable
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from qubix_protocol import codec
from qubix_protocol.errors import (
    BadSignature,
    Expired,
    Malformed,
    Replayed,
    TooLarge,
    WrongAudience,
    WrongNetwork,
    WrongVersion,
)
from qubix_protocol.keys import SigningKey, verify
from qubix_protocol.messages import Message, type_name
from qubix_protocol.units import ENVELOPE_LIFE_MS_MAX, FRAME_BYTES_MAX, PROTOCOL_VERSION, Network

M = TypeVar("M", bound=Message)
Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
ANYONE: Final = bytes(32)
"""The audience of gossip."""
_CONTEXT: Final = b"qubix/envelope/1\0"
_COUNTER_MAX: Final = 2**53


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is signed. `sequence` is (incarnation, counter): the first from the handshake, the second rising."""

    version: int
    network: str
    type: Annotated[str, Meta(max_length=32)]
    sender: Key
    audience: Key
    incarnation: Annotated[int, Meta(ge=0, le=_COUNTER_MAX)]
    counter: Annotated[int, Meta(ge=0, le=_COUNTER_MAX)]
    expires_ms: Annotated[int, Meta(ge=0, le=_COUNTER_MAX)]
    body: bytes


class _Wire(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    signed: bytes
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class Opened(msgspec.Struct, frozen=True):
    """A verified envelope: `raw` is kept as evidence."""

    header: Header
    raw: bytes

    @property
    def sequence(self) -> tuple[int, int]:
        return self.header.incarnation, self.header.counter

    def body(self, kind: type[M]) -> M:
        """The statement inside, which must be of the type that the header names. Raises `Malformed`."""
        value: M = codec.decode(self.header.body, kind)
        if type_name(type(value)) != self.header.type:
            raise Malformed(f"the header says {self.header.type!r}, the body {type_name(type(value))!r}")
        return value


def seal(
    message: Message,
    key: SigningKey,
    *,
    network: Network,
    audience: bytes,
    incarnation: int,
    counter: int,
    expires_ms: int,
) -> bytes:
    """Sign a statement. `expires_ms` is by the *receiver's* clock (the handshake tells the offset)."""
    header = Header(
        PROTOCOL_VERSION,
        network,
        type_name(type(message)),
        key.public,
        audience,
        incarnation,
        counter,
        expires_ms,
        codec.encode(message),
    )
    signed = codec.encode(header)
    return codec.encode(_Wire(signed, key.sign(_CONTEXT + signed)))


def open_envelope(
    raw: bytes,
    *,
    network: Network,
    audience: bytes,
    now_ms: int,
    sender: bytes | None = None,
    limit_bytes: int = FRAME_BYTES_MAX,
) -> Opened:
    """Everything that can be judged without memory: size, structure, version, network, audience, expiry, signature.

    `sender` is the only key accepted, or None for any (the caller then decides who may speak). Replays are
    `ReplayGuard`'s. Raises a `ProtocolError`; the cheap tests come before the signature.
    """
    wire: _Wire = codec.decode(raw, _Wire, limit_bytes=limit_bytes)
    header: Header = codec.decode(wire.signed, Header, limit_bytes=limit_bytes)
    if header.version != PROTOCOL_VERSION:
        raise WrongVersion(f"protocol version {header.version}; this side speaks {PROTOCOL_VERSION}")
    if header.network != network:
        raise WrongNetwork(f"meant for network {header.network!r}, this is {network!r}")
    if header.audience not in (audience, ANYONE):
        raise WrongAudience("meant for somebody else")
    if not now_ms <= header.expires_ms <= now_ms + ENVELOPE_LIFE_MS_MAX:
        raise Expired(f"expiry {header.expires_ms} is past or too far ahead of {now_ms}")
    if sender is not None and header.sender != sender:
        raise BadSignature("signed by another key than expected")
    if not verify(header.sender, _CONTEXT + wire.signed, wire.signature):
        raise BadSignature("the signature does not match")
    return Opened(header, raw)


class Claim(msgspec.Struct, frozen=True):
    """An envelope that was read and not verified: for refusals that are cheaper than a signature's check."""

    header: Header
    raw: bytes
    signed: bytes
    signature: bytes

    @property
    def sequence(self) -> tuple[int, int]:
        return self.header.incarnation, self.header.counter

    def claims(self, kind: type[M]) -> M:
        """What it says, to be believed only once it is proved. Raises `Malformed`."""
        return Opened(self.header, self.raw).body(kind)

    def proved(self) -> Opened:
        """Raises `BadSignature` unless it was signed by the sender that it names."""
        if not verify(self.header.sender, _CONTEXT + self.signed, self.signature):
            raise BadSignature("the signature is not of the expected key")
        return Opened(self.header, self.raw)


def read_claim(raw: bytes, *, network: Network, limit_bytes: int = FRAME_BYTES_MAX) -> Claim:
    """Size, structure, version and network are judged, nothing else."""
    wire: _Wire = codec.decode(raw, _Wire, limit_bytes=limit_bytes)
    header: Header = codec.decode(wire.signed, Header, limit_bytes=limit_bytes)
    if header.version != PROTOCOL_VERSION:
        raise WrongVersion(f"protocol version {header.version}; this side speaks {PROTOCOL_VERSION}")
    if header.network != network:
        raise WrongNetwork(f"meant for network {header.network!r}, this is {network!r}")
    return Claim(header, raw, wire.signed, wire.signature)


def read_evidence(raw: bytes, *, network: Network, sender: bytes | None) -> Opened:
    """An old envelope as evidence: signature, version, network and sender are judged, expiry and audience are not.

    `sender` None: any key, which the caller then judges by the header."""
    claim = read_claim(raw, network=network)
    if sender is not None and claim.header.sender != sender:
        raise BadSignature("the signature is not of the expected key")
    return claim.proved()


def peek_type(raw: bytes) -> str:
    """The type that an envelope claims, unverified: for routing and batching alone. "" when it cannot be read."""
    try:
        wire: _Wire = codec.decode(raw, _Wire)
        header: Header = codec.decode(wire.signed, Header)
    except (Malformed, TooLarge):
        return ""
    return header.type


class ReplayGuard:
    """Accepts each (incarnation, counter) once, in rising order, for one sender.

    The incarnation is new at every handshake and kept in the database, so a guard that starts empty after a restart
    still refuses everything said before it.
    """

    def __init__(self, incarnation: int) -> None:
        self.incarnation: Final = incarnation
        self._last = -1

    def check(self, opened: Opened) -> None:
        incarnation, counter = opened.sequence
        if incarnation != self.incarnation:
            raise Replayed(f"incarnation {incarnation} is not the live one ({self.incarnation})")
        if counter <= self._last:
            raise Replayed(f"counter {counter} was used already (last {self._last})")
        self._last = counter


class Sealer:
    """Seals one side's statements of one session, counting them."""

    def __init__(
        self,
        key: SigningKey,
        *,
        network: Network,
        audience: bytes,
        incarnation: int,
        clock_ms: Callable[[], int],
        life_ms: int = 60_000,
        after: int = 0,
    ) -> None:
        """`clock_ms` is the receiver's clock as this side knows it (own clock plus the handshake's offset); counters
        go on after `after`."""
        self._key, self._network, self._audience = key, network, audience
        self._incarnation, self._clock_ms, self._life_ms = incarnation, clock_ms, life_ms
        self._counter = after

    def seal(self, message: Message) -> bytes:
        self._counter += 1
        return seal(
            message,
            self._key,
            network=self._network,
            audience=self._audience,
            incarnation=self._incarnation,
            counter=self._counter,
            expires_ms=self._clock_ms() + self._life_ms,
        )
