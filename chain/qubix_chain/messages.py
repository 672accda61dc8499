# SPDX-License-Identifier: Apache-2.0
"""Messages signed by wallets, in the two schemes that wallets use.

Both sign a bare hash, and so does a transaction: whoever gets a wallet to sign the bytes of a transaction's body as a
"message" has its money. Hence only printable text is signed and accepted here, and no text that could be a body,
whether as it stands or read as hex digits (which the browser extension does).
"""

import enum
import string
from typing import Final

from qubix_chain import crypto
from qubix_chain.k12 import k12
from qubix_chain.transaction import HEADER_SIZE, PAYLOAD_SIZE_MAX

PREFIX: Final = b"Qubic Signed Message:\n"
TEXT_BYTES_MAX: Final = 4096


class Scheme(enum.Enum):
    """What is hashed: the text alone (the browser extension), or with the prefix before it (WalletConnect)."""

    RAW = "raw"
    PREFIXED = "prefixed"


def check_text(text: str) -> bytes:
    """The UTF-8 of a text that may be signed. Raises ValueError that says why another may not."""
    if not text.strip():
        raise ValueError("message: there is nothing to sign")
    if not all(letter.isprintable() or letter == "\n" for letter in text):
        raise ValueError("message: only printable characters and line ends are signed")
    data = text.encode()
    if len(data) > TEXT_BYTES_MAX:
        raise ValueError(f"message: at most {TEXT_BYTES_MAX} bytes, this one has {len(data)}")
    if _could_be_body(data) or _could_be_body(_read_as_hex(text)):
        raise ValueError("message: it could be a transaction; signing it could pay somebody")
    return data


def digest(text: str, scheme: Scheme) -> bytes:
    """What a wallet signs for this text. Raises ValueError as `check_text` does."""
    data = check_text(text)
    return k12(PREFIX + data if scheme is Scheme.PREFIXED else data)


def sign(subseed: bytes, public_key: bytes, text: str, scheme: Scheme = Scheme.RAW) -> bytes:
    """Raises ValueError for a text that must not be signed."""
    return crypto.sign(subseed, public_key, digest(text, scheme))


def verify(public_key: bytes, text: str, signature: bytes) -> Scheme | None:
    """The scheme under which the key signed exactly this text; None for any other signature, and for a text that must
    not be signed."""
    try:
        digests = [(scheme, digest(text, scheme)) for scheme in Scheme]
    except ValueError:
        return None
    return next((scheme for scheme, signed in digests if crypto.verify(public_key, signed, signature)), None)


def _could_be_body(data: bytes) -> bool:
    """Whether a node could take the bytes for what a transaction signs: the size in the header is the payload's."""
    payload_size = len(data) - HEADER_SIZE
    return 0 <= payload_size <= PAYLOAD_SIZE_MAX and int.from_bytes(data[78:80], "little") == payload_size


def _read_as_hex(text: str) -> bytes:
    digits = text.strip().removeprefix("0x").removeprefix("0X")
    return bytes.fromhex(digits) if len(digits) % 2 == 0 and set(digits) <= set(string.hexdigits) else b""
