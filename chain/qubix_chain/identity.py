# SPDX-License-Identifier: Apache-2.0
"""Identities: a public key written as 60 capital letters, four words of 14 and a checksum of 4. Transaction ids are
written the same way in small letters.

26^14 is more than 3 · 2^64, so any word has other spellings under the same checksum: only the first is an identity.
"""

from typing import Final

from qubix_chain.k12 import k12

LENGTH: Final = 60
NULL: Final = bytes(32)  # nobody's: QU sent there are destroyed
_WORDS, _WORD_LETTERS, _CHECK_LETTERS = 4, 14, 4
_CHECK_MASK: Final = 0x3FFFF
_A: Final = ord("A")


def encode(public_key: bytes) -> str:
    if len(public_key) != 32:
        raise ValueError(f"a public key has 32 bytes, this one {len(public_key)}")
    words = (int.from_bytes(public_key[at : at + 8], "little") for at in range(0, 32, 8))
    return "".join(_letters(word, _WORD_LETTERS) for word in words) + _letters(_checksum(public_key), _CHECK_LETTERS)


def decode(text: str) -> bytes:
    """The public key. Raises ValueError that names the broken rule: length, alphabet, checksum, spelling."""
    if len(text) != LENGTH:
        raise ValueError(f"length: an identity has {LENGTH} letters, this text has {len(text)}")
    if not all("A" <= letter <= "Z" for letter in text):
        small = " (these are small letters)" if all("a" <= letter <= "z" for letter in text) else ""
        raise ValueError(f"alphabet: an identity is written in the capital letters A to Z alone{small}")
    starts = range(0, _WORDS * _WORD_LETTERS, _WORD_LETTERS)
    words = [_number(text[start : start + _WORD_LETTERS]) for start in starts]
    public_key = b"".join((word % 2**64).to_bytes(8, "little") for word in words)
    if _number(text[-_CHECK_LETTERS:]) != _checksum(public_key):
        raise ValueError("checksum: the last four letters do not belong to the others; a letter is mistyped or missing")
    if any(word >= 2**64 for word in words):
        raise ValueError(f"spelling: not canonical; the same key is properly written {encode(public_key)}")
    return public_key


def encode_tx_id(digest: bytes) -> str:
    """The id of the transaction whose 32-byte hash this is: 60 small letters."""
    return encode(digest).lower()


def decode_tx_id(text: str) -> bytes:
    """The hash of a transaction id. Raises ValueError as `decode` does."""
    if any("A" <= letter <= "Z" for letter in text):
        raise ValueError("alphabet: a transaction id is written in the small letters a to z alone")
    try:
        return decode(text.upper() if text.isascii() else text)
    except ValueError as reason:
        raise ValueError(str(reason).replace("an identity", "a transaction id").replace("capital", "small")) from None


def _checksum(public_key: bytes) -> int:
    return int.from_bytes(k12(public_key, 3), "little") & _CHECK_MASK


def _letters(number: int, count: int) -> str:
    letters = []
    for _ in range(count):
        number, letter = divmod(number, 26)
        letters.append(chr(_A + letter))
    return "".join(letters)


def _number(letters: str) -> int:
    number = 0
    for letter in reversed(letters):
        number = number * 26 + ord(letter) - _A
    return number
