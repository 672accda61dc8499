# SPDX-License-Identifier: Apache-2.0
"""Pairing: a node becomes part of a person's account (trust A2, docs/adr/0034).

A code has 128 random bits and serves one node once; a person compares the node's fingerprint before it counts.
"""

import hashlib
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from qubix_protocol.api import Body, View
from qubix_protocol.messages import Id, Message, Millis

CODE_BYTES: Final = 16
CODE_LIFE_S: Final = 600
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's: no I, L, O or U."""
_READ_AS: Final = str.maketrans({"O": "0", "I": "1", "L": "1"}) | {ord("-"): None, ord(" "): None}
_CODE_CHARACTERS: Final = 26
_FINGERPRINT_CHARACTERS: Final = 16
_GROUP: Final = 4


class PairingState(StrEnum):
    WAITING = "waiting"
    """No node has brought the code yet."""
    SEEN = "seen"
    """One has: a person compares its fingerprint."""
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    EXPIRED = "expired"


class Pair(Message, frozen=True, kw_only=True, tag="pair"):
    """Node → coordinator by HTTPS: whoever made this code may take me into their account. The same node may say it as
    often as it likes."""

    code: Annotated[str, Meta(min_length=1, max_length=64)]
    clock_ms: Millis


class PairedDevice(View, frozen=True, kw_only=True):
    """A device of the node in the market. `selftest` is the outcome of its last one: `pass` or `fail`; "" before."""

    listing_id: Id
    model: str
    online: bool
    verified: bool
    selftest: str = ""


class PairingView(View, frozen=True, kw_only=True):
    """`GET /pairings/{id}`, and the topic `pairing:ID`. `due_ms` is when it ends by itself, None once it has ended.
    `others` counts further nodes that brought the code and got nothing."""

    pairing_id: Id
    name: str
    state: PairingState
    made_ms: int
    due_ms: int | None = None
    peer_id: str = ""
    fingerprint: str = ""
    seen_ms: int | None = None
    ended_ms: int | None = None
    others: int = 0
    devices: tuple[PairedDevice, ...] = ()


class PairingMadeView(View, frozen=True, kw_only=True):
    """`code` is told this once, and `repr` keeps it back."""

    code: str
    pairing: PairingView

    def __repr__(self) -> str:
        return f"PairingMadeView(pairing={self.pairing!r})"


class PairingsView(View, frozen=True, kw_only=True):
    """`GET /pairings`: newest first."""

    pairings: tuple[PairingView, ...]


class PairingBody(Body, frozen=True, kw_only=True):
    """`POST /pairings`. `name` is for the person's own list, such as the machine that the code is for."""

    name: Annotated[str, Meta(pattern=r"^[^\x00]+$", max_length=100)] = "a GPU"


class ConfirmBody(Body, frozen=True, kw_only=True):
    """`POST /pairings/{id}/confirm`: the fingerprint that was compared."""

    fingerprint: Annotated[str, Meta(max_length=64)]


class NodePairingView(View, frozen=True, kw_only=True):
    """What the node itself hears: `POST /nodes/pair`."""

    state: PairingState
    fingerprint: str
    due_ms: int | None = None
    devices: tuple[PairedDevice, ...] = ()


def code_of(random_bytes: bytes) -> str:
    """26 characters in groups, to be copied or typed."""
    if len(random_bytes) != CODE_BYTES:
        raise ValueError(f"a pairing code is made of {CODE_BYTES} random bytes")
    return _grouped(_spelt(int.from_bytes(random_bytes), _CODE_CHARACTERS))


def digest_of_code(text: str) -> bytes | None:
    """What is stored of a code, however it was typed; None for what is no code."""
    plain = text.upper().translate(_READ_AS)
    if len(plain) != _CODE_CHARACTERS or set(plain) - set(_ALPHABET):
        return None
    number = 0
    for character in plain:
        number = number * 32 + _ALPHABET.index(character)
    if number >= 1 << (8 * CODE_BYTES):
        return None
    return hashlib.sha256(b"qubix pairing code\0" + number.to_bytes(CODE_BYTES)).digest()


def fingerprint(public_key: bytes) -> str:
    """80 bits of a node's key as people compare them: `ABCD-EFGH-JKMN-PQRS`."""
    digest = hashlib.sha256(b"qubix node\0" + public_key).digest()
    return _grouped(_spelt(int.from_bytes(digest[:10]), _FINGERPRINT_CHARACTERS))


def same_fingerprint(one: str, other: str) -> bool:
    """However they were typed."""
    return one.upper().translate(_READ_AS) == other.upper().translate(_READ_AS)


def _spelt(number: int, length: int) -> str:
    return "".join(_ALPHABET[number >> (5 * place) & 31] for place in reversed(range(length)))


def _grouped(text: str) -> str:
    return "-".join(text[start : start + _GROUP] for start in range(0, len(text), _GROUP))


def listed(devices: tuple[PairedDevice, ...]) -> bool:
    """Whether the market has seen a device of the node, and can reach it now."""
    return any(device.online for device in devices)


def devices_of(raw: object) -> tuple[PairedDevice, ...]:
    """From what the database puts together. Raises msgspec.ValidationError."""
    return msgspec.convert(raw, tuple[PairedDevice, ...])
