# SPDX-License-Identifier: Apache-2.0
"""Ed25519 keys and the libp2p peer ids made from them.

A peer id of an Ed25519 key is the *identity* multihash of the key's protobuf, so the key can be read back from it
(libp2p specs, peer-ids): `00 24 | 08 01 12 20 | 32 bytes of key`, in base58.
"""

from typing import Final

import base58
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from qubix_protocol.errors import Malformed
from qubix_protocol.units import PeerId

_PREFIX: Final = bytes.fromhex("002408011220")


class SigningKey:
    """A private Ed25519 key made from its 32-byte seed. Never printed: its `repr` shows the public part."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise Malformed(f"an Ed25519 seed has 32 bytes, this one {len(seed)}")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.seed: Final = seed
        self.public: Final[bytes] = self._key.public_key().public_bytes_raw()
        self.peer_id: Final[PeerId] = peer_id(self.public)

    @classmethod
    def generate(cls) -> "SigningKey":
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self.peer_id})"


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the signature is the key's own. False, never an exception, on keys and signatures of any length."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def peer_id(public_key: bytes) -> PeerId:
    return PeerId(base58.b58encode(_PREFIX + public_key).decode())


def public_key_of(peer: str) -> bytes:
    """The 32 bytes of key inside a peer id; `Malformed` for any other text."""
    try:
        raw = base58.b58decode(peer) if len(peer) <= 64 else b""
    except ValueError:
        raw = b""
    if len(raw) != 38 or not raw.startswith(_PREFIX):
        raise Malformed(f"{peer[:80]!r} is not the peer id of an Ed25519 key")
    return raw[len(_PREFIX) :]
