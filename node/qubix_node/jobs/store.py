# SPDX-License-Identifier: Apache-2.0
"""The artifact store as the node sees it (trust D1). `store_http` and `store_fake` implement it."""

import hashlib
from pathlib import Path
from typing import Final, Protocol

import msgspec

_BLOCK_BYTES: Final = 1024 * 1024


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One content, and the attempt in whose name it is asked for."""

    digest: bytes
    size_bytes: int
    attempt_id: str
    fence: int


class ArtifactStore(Protocol):
    async def fetch(self, artifact: Artifact, into: Path) -> None:
        """The whole content in `into`, size and digest checked. What an earlier try left in `into` is gone on with.

        Raises `StoreRefused`, `StoreUnavailable` or `WrongContent` (then `into` is gone).
        """
        ...

    async def put(self, artifact: Artifact, path: Path) -> None:
        """Returns when the store has all of it. Raises `StoreRefused` or `StoreUnavailable`."""
        ...


def size_of(path: Path) -> int:
    """0 when there is no such file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def digest_of(path: Path) -> bytes:
    """SHA-256 of a file. Blocks on the disk."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            sha.update(block)
    return sha.digest()
