# SPDX-License-Identifier: Apache-2.0
"""KangarooTwelve (RFC 9861) with an empty customisation: the one hash of Qubic."""

from Crypto.Hash import KangarooTwelve


def k12(data: bytes, length: int = 32) -> bytes:
    """The first `length` bytes of the hash; a longer output begins with every shorter one."""
    return KangarooTwelve.new(data=data).read(length)
