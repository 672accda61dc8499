# SPDX-License-Identifier: Apache-2.0
"""Keys and signatures of Qubic (SchnorrQ on FourQ with K12).

A seed gives a subseed, that a private key, that a public key; what signs is the subseed. Signing is deterministic.
Verification is strict: it refuses everything that the network's own nodes refuse (`core/src/four_q.h`), and every
public key outside the subgroup of prime order, where implementations disagree.
"""

import secrets
from typing import Final

from qubix_chain.fourq import Curve, N, Point, curve
from qubix_chain.k12 import k12

SEED_LENGTH: Final = 55
SIGNATURE_SIZE: Final = 64
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


def new_seed() -> str:
    """A seed of the operating system's randomness: 55 letters, about 258 bits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(SEED_LENGTH))


def subseed(seed: str) -> bytes:
    """32 bytes. Raises ValueError, which never quotes the seed."""
    if len(seed) != SEED_LENGTH:
        raise ValueError(f"a seed has {SEED_LENGTH} letters, this text has {len(seed)}")
    if not set(seed) <= set(_LETTERS):
        raise ValueError("a seed is written in the small letters a to z alone")
    return k12(bytes(ord(letter) - ord("a") for letter in seed))


def private_key(subseed: bytes) -> bytes:
    """32 bytes: a little-endian number, used modulo the order of the curve."""
    return k12(_exactly(subseed, 32, "a subseed"))


def public_key(private_key: bytes, *, on: Curve | None = None) -> bytes:
    on = on or curve()
    scalar = int.from_bytes(_exactly(private_key, 32, "a private key"), "little") % N
    return on.encode(on.times_generator(scalar))


def public_key_of(seed: str) -> bytes:
    return public_key(private_key(subseed(seed)))


def sign(subseed: bytes, public_key: bytes, digest: bytes, *, on: Curve | None = None) -> bytes:
    """The 64 bytes of signature over a digest of 32.

    Raises ValueError for a public key that is not the subseed's own: signing one digest under two keys would give the
    private key away, so this is checked each time, at the price of a second multiplication.
    """
    on = on or curve()
    keys = k12(_exactly(subseed, 32, "a subseed"), 64)
    private = int.from_bytes(keys[:32], "little") % N
    if on.encode(on.times_generator(private)) != public_key:
        raise ValueError("the public key is not that of the subseed which signs")
    nonce = int.from_bytes(k12(keys[32:] + _exactly(digest, 32, "a digest")), "little") % N
    point = on.encode(on.times_generator(nonce))
    answer = (nonce - private * _challenge(point, public_key, digest)) % N
    return point + answer.to_bytes(32, "little")


def verify(public_key: bytes, digest: bytes, signature: bytes, *, on: Curve | None = None) -> bool:
    """Whether the key signed the digest. False, never an exception, on bytes of any content and length."""
    on = on or curve()
    if len(digest) != 32 or len(signature) != SIGNATURE_SIZE:
        return False
    point, answer = signature[:32], int.from_bytes(signature[32:], "little")
    if point[15] & 0x80 or answer >= N:
        return False
    key = _key_point(public_key, on)
    if key is None:
        return False
    challenge = _challenge(point, public_key, digest)
    return on.encode(on.add(on.times_generator(answer), on.times(challenge, key))) == point


def is_public_key(public_key: bytes) -> bool:
    """Whether somebody could sign with this key: a point of prime order in its one encoding. The addresses of contracts
    and the null identity are no such keys, though QU can be sent to them."""
    return _key_point(public_key, curve()) is not None


def _key_point(public_key: bytes, on: Curve) -> Point | None:
    key = on.decode(public_key)
    return key if key is not None and on.in_prime_subgroup(key) else None


def _challenge(point: bytes, public_key: bytes, digest: bytes) -> int:
    return int.from_bytes(k12(point + public_key + digest), "little") % N


def _exactly(data: bytes, size: int, name: str) -> bytes:
    if len(data) != size:
        raise ValueError(f"{name} has {size} bytes, this one {len(data)}")
    return data
