# SPDX-License-Identifier: Apache-2.0
"""What hides a control session from the gateway that carries it (trust P4).

Challenge and Hello, both signed, each carry an X25519 key made for this session alone; what both sides derive from them
encrypts every frame from the Hello on (RFC 7748; HKDF-SHA-256, RFC 5869; ChaCha20-Poly1305, RFC 8439). Inside is the
signed envelope as it is: encryption hides, the signature proves. On the wire: MessagePack
`[label, exchange key (a Hello's) or empty, counter, ciphertext]`; the label is what gateways batch by, all they see.
"""

from enum import Enum
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Meta

from qubix_protocol import codec
from qubix_protocol.envelope import peek_type
from qubix_protocol.errors import BadSignature, Malformed, TooLarge
from qubix_protocol.messages import TELEMETRY_TYPES

KEY_BYTES: Final = 32
_CONTEXT: Final = b"qubix/control/1\0"
_SHOWN: Final = frozenset({"hello", "welcome"}) | TELEMETRY_TYPES
_COUNTER_MAX: Final = 2**63 - 1


class Side(Enum):
    COORDINATOR = "coordinator"
    NODE = "node"


class _Wire(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    label: Annotated[str, Meta(min_length=1, max_length=16)]
    exchange: Annotated[bytes, Meta(max_length=KEY_BYTES)]
    counter: Annotated[int, Meta(ge=1, le=_COUNTER_MAX)]
    ciphertext: bytes


class SessionKeys(msgspec.Struct, frozen=True):
    """One for each direction, so that neither side's counters meet the other's."""

    from_node: bytes
    from_coordinator: bytes


class Exchange:
    """One side's key of one session; `secret` is 32 random bytes that serve once."""

    def __init__(self, secret: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(secret)
        self.public: Final = self._key.public_key().public_bytes_raw()

    def channel(self, other: bytes, *, nonce: bytes, side: Side) -> "Channel":
        """`nonce` is the challenge's. Raises `BadSignature` for a key with which nothing can be agreed."""
        mine, theirs = self.public, other
        node, coordinator = (mine, theirs) if side is Side.NODE else (theirs, mine)
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(other))
        except ValueError as problem:
            raise BadSignature("the exchange key is not one") from problem
        derived = HKDF(SHA256(), 2 * KEY_BYTES, salt=nonce, info=_CONTEXT + coordinator + node).derive(shared)
        return Channel(SessionKeys(derived[:KEY_BYTES], derived[KEY_BYTES:]), side)


class Channel:
    """One side of an encrypted session. `keys` is for those who keep a key log."""

    def __init__(self, keys: SessionKeys, side: Side) -> None:
        self.keys: Final = keys
        ours, theirs = keys.from_coordinator, keys.from_node
        if side is Side.NODE:
            ours, theirs = theirs, ours
        self._ours, self._theirs = ChaCha20Poly1305(ours), ChaCha20Poly1305(theirs)
        self._counter = 0

    def encrypt(self, envelope: bytes, exchange: bytes = b"") -> bytes:
        """A frame; `exchange` is this side's public key in a Hello, which the other side cannot read without it."""
        self._counter += 1
        label = _label(peek_type(envelope))
        box = self._ours.encrypt(_nonce(self._counter), envelope, _bound(label, exchange))
        return codec.encode(_Wire(label, exchange, self._counter, box))

    def decrypt(self, frame: bytes) -> bytes:
        """The envelope inside. Whether it is new is the envelope's own affair. Raises `Malformed`, `TooLarge`,
        `BadSignature`."""
        wire: _Wire = codec.decode(frame, _Wire)
        try:
            return self._theirs.decrypt(_nonce(wire.counter), wire.ciphertext, _bound(wire.label, wire.exchange))
        except InvalidTag as problem:
            raise BadSignature("the frame was not encrypted for this session") from problem


def exchange_in(frame: bytes) -> bytes:
    """The node's key in an encrypted Hello; nothing proves it yet. Raises `Malformed`, `TooLarge`."""
    wire: _Wire = codec.decode(frame, _Wire)
    if len(wire.exchange) != KEY_BYTES:
        raise Malformed("a Hello carries the key that it is encrypted with")
    return wire.exchange


def label_of(frame: bytes) -> str:
    """What anybody can see of a frame, unverified: a label, the type of a bare envelope, or "" for what is neither."""
    try:
        wire: _Wire = codec.decode(frame, _Wire)
    except (Malformed, TooLarge):
        return peek_type(frame)
    return wire.label


def _label(kind: str) -> str:
    return kind if kind in _SHOWN else "statement"


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(12, "big")


def _bound(label: str, exchange: bytes) -> bytes:
    return label.encode() + b"\0" + exchange
