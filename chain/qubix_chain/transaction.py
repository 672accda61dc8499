# SPDX-License-Identifier: Apache-2.0
"""Transactions: 80 bytes of header, a payload of at most 1024, a signature of 64 bytes.

The layout is that of the nodes (core, network_messages/transactions.h); integers are little-endian.
"""

import struct
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from qubix_chain import crypto
from qubix_chain.contracts import AMOUNT_QU_MAX
from qubix_chain.identity import encode_tx_id
from qubix_chain.k12 import k12

HEADER_SIZE: Final = 80
PAYLOAD_SIZE_MAX: Final = 1024
SIZE_MIN: Final = HEADER_SIZE + crypto.SIGNATURE_SIZE
SIZE_MAX: Final = SIZE_MIN + PAYLOAD_SIZE_MAX
_HEADER: Final = struct.Struct("<32s32sqIHH")


@dataclass(frozen=True)
class Transaction:
    """A transfer of `amount` QU at exactly one tick: it can never run at another. Made by `build` and `parse`."""

    source: bytes
    destination: bytes
    amount: int
    tick: int
    input_type: int = 0
    payload: bytes = b""
    signature: bytes | None = field(default=None)

    @classmethod
    def build(
        cls, *, source: bytes, destination: bytes, amount: int, tick: int, input_type: int = 0, payload: bytes = b""
    ) -> "Transaction":
        """Unsigned. Raises ValueError that says what is out of range; numbers are `int` alone, no bool, no float."""
        _is_key("source", source)
        _is_key("destination", destination)
        _within("amount", amount, AMOUNT_QU_MAX, "10^15 QU")
        _within("tick", tick, 2**32 - 1, "2^32 - 1")
        _within("input_type", input_type, 2**16 - 1, "2^16 - 1")
        if type(payload) is not bytes or len(payload) > PAYLOAD_SIZE_MAX:
            raise ValueError(f"payload: at most {PAYLOAD_SIZE_MAX} bytes")
        return cls(source, destination, amount, tick, input_type, payload)

    @classmethod
    def parse(cls, raw: bytes, *, verify: bool = True) -> "Transaction":
        """A signed transaction of exactly these bytes. Raises ValueError, by default also for a signature that is not
        the source's own."""
        if not SIZE_MIN <= len(raw) <= SIZE_MAX:
            raise ValueError(f"length: a signed transaction has {SIZE_MIN} to {SIZE_MAX} bytes, this one {len(raw)}")
        source, destination, amount, tick, input_type, size = _HEADER.unpack_from(raw)
        if len(raw) != SIZE_MIN + size:
            raise ValueError(f"length: the header says {SIZE_MIN + size} bytes, there are {len(raw)}")
        body_end = HEADER_SIZE + size
        built = cls.build(
            source=source,
            destination=destination,
            amount=amount,
            tick=tick,
            input_type=input_type,
            payload=bytes(raw[HEADER_SIZE:body_end]),
        )
        signed = replace(built, signature=bytes(raw[body_end:]))
        if verify and not signed.is_signed_by_source:
            raise ValueError(
                "signature: not made by the source of the transaction, or the transaction was changed since"
            )
        return signed

    def sign(self, secret: str | bytes) -> "Transaction":
        """The same, signed by the source's seed (text) or subseed (bytes). Raises ValueError for another's."""
        subseed = crypto.subseed(secret) if isinstance(secret, str) else secret
        try:
            signature = crypto.sign(subseed, self.source, self.digest)
        except ValueError as reason:
            raise ValueError(f"source: {reason}") from None
        return self.with_signature(signature)

    def with_signature(self, signature: bytes) -> "Transaction":
        """The same with a signature made elsewhere: by a wallet, or by the process that holds the key."""
        if len(signature) != crypto.SIGNATURE_SIZE:
            raise ValueError(f"signature: {crypto.SIGNATURE_SIZE} bytes, not {len(signature)}")
        return replace(self, signature=signature)

    @property
    def body(self) -> bytes:
        """What is signed: everything but the signature."""
        header = _HEADER.pack(self.source, self.destination, self.amount, self.tick, self.input_type, len(self.payload))
        return header + self.payload

    @property
    def digest(self) -> bytes:
        return k12(self.body)

    @property
    def is_signed_by_source(self) -> bool:
        return self.signature is not None and crypto.verify(self.source, self.digest, self.signature)

    def to_bytes(self) -> bytes:
        """What is broadcast. Raises ValueError while unsigned."""
        if self.signature is None:
            raise ValueError("signature: the transaction is not signed yet")
        return self.body + self.signature

    @cached_property
    def id(self) -> str:
        """60 small letters. Raises ValueError while unsigned: the id covers the signature."""
        return encode_tx_id(k12(self.to_bytes()))


def _is_key(name: str, value: bytes) -> None:
    if type(value) is not bytes or len(value) != 32:
        raise ValueError(f"{name}: a public key of 32 bytes")


def _within(name: str, value: int, highest: int, highest_name: str) -> None:
    if type(value) is not int:
        raise ValueError(f"{name}: a whole number (int), not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name}: not negative, this one is {value}")
    if value > highest:
        raise ValueError(f"{name}: at most {highest_name}, this one is {value}")
