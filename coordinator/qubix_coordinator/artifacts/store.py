# SPDX-License-Identifier: Apache-2.0
"""The bytes: an object store in which neither names nor contents tell anything without the key.

An object's name is the HMAC of its digest under a key of its account, and it is sealed by AES-256-GCM in segments of
1 MiB under a key of its own: `QXA1 | salt (20) | size (8)`, then each segment with its 16-byte tag. Name, header and
segment number are authenticated, so nothing can be cut, swapped or moved unnoticed.

The salt comes from the digest: storing the same content twice writes the same bytes, whoever reads them meanwhile.
No nonce ever serves two contents, because only bytes whose digest was checked are sealed.
"""

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import logging
import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import obstore
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from obstore.store import LocalStore, from_url

from qubix_coordinator.artifacts.keys import derive, load_or_create
from qubix_coordinator.errors import InvalidInput, NotFound, Unavailable
from qubix_coordinator.settings import Settings
from qubix_coordinator.threads import made

log = logging.getLogger(__name__)
SEGMENT_BYTES: Final = 1024 * 1024
TAG_BYTES: Final = 16
HEADER_BYTES: Final = 32
_MAGIC: Final = b"QXA1"
_SALT_BYTES: Final = 20
_SALT: Final = slice(4, 4 + _SALT_BYTES)
_DELETE_S: Final = 20.0
_BATCH: Final = 4
"""Segments read or written at once: bounds what one transfer holds in memory."""


class ArtifactStore:
    """Safe to use from several processes at once: objects are written whole or not at all."""

    def __init__(self, objects: Any, key: bytes) -> None:
        self._objects = objects
        self._key = key

    @classmethod
    def open(cls, settings: Settings) -> "ArtifactStore":
        """The store that the settings name, with the key of the data folder (made when it is not there yet)."""
        key = load_or_create(settings.data_dir / "artifact.key")
        if settings.artifact_url:
            return cls(from_url(settings.artifact_url), key)
        settings.artifacts_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(LocalStore(prefix=settings.artifacts_dir), key)

    def name(self, account_id: UUID, digest: bytes) -> str:
        key = derive(self._key, b"artifact/name/" + account_id.bytes)
        code = hmac.new(key, digest, hashlib.sha256).hexdigest()
        return f"{code[:2]}/{code}"

    async def finish_upload(self, account_id: UUID, digest: bytes, size_bytes: int, staged: Path) -> None:
        """Seals a complete staging file into the store. Raises InvalidInput when its content is not of this digest."""
        await asyncio.to_thread(_check_content, staged, digest, size_bytes)
        name = self.name(account_id, digest)
        salt = hmac.new(self._key, account_id.bytes + digest, hashlib.sha256).digest()[:_SALT_BYTES]
        header = _MAGIC + salt + size_bytes.to_bytes(8, "big")
        with contextlib.closing(_sealed(staged, self._cipher(account_id, salt), header, name)) as pieces:
            try:
                await self._objects.put_async(name, _from_threads(pieces))
            except (OSError, obstore.exceptions.BaseError) as problem:
                raise _away(problem) from problem
        await asyncio.to_thread(self._make_durable, name)

    async def read(
        self, account_id: UUID, digest: bytes, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[bytes]:
        """Bytes [start, stop) in pieces. Raises NotFound, or Unavailable when it cannot be read or is damaged."""
        name = self.name(account_id, digest)
        header = await self._get(name, 0, HEADER_BYTES)
        size = int.from_bytes(header[24:], "big")
        stop = size if stop is None else min(stop, size)
        cipher = self._cipher(account_id, header[_SALT])
        for first in range(start // SEGMENT_BYTES, -(-stop // SEGMENT_BYTES) if stop > start else 0, _BATCH):
            last = min(first + _BATCH, -(-stop // SEGMENT_BYTES))
            sealed = await self._get(name, _position(first), min(_position(last), _total(size)))
            try:
                plain = await asyncio.to_thread(_unseal, cipher, header, name, first, sealed)
            except InvalidTag:
                log.error("artifact.damaged", extra={"object": name, "segment": first})  # noqa: TRY400 - no trace needed
                raise Unavailable(
                    "the stored artifact is damaged", remedy="Tell the operator; upload the data again"
                ) from None
            base = first * SEGMENT_BYTES
            yield plain[max(0, start - base) : stop - base]

    async def copy_to(self, account_id: UUID, digest: bytes, path: Path) -> None:
        """Writes the whole content to `path`, which must not be readable to others: it is plaintext there."""
        with contextlib.closing(await made(lambda: path.open("wb"), lambda file: file.close())) as out:
            async for piece in self.read(account_id, digest):
                await asyncio.to_thread(out.write, piece)

    async def delete(self, account_id: UUID, digest: bytes) -> None:
        """Safe to repeat. Raises Unavailable."""
        try:
            async with asyncio.timeout(_DELETE_S):
                await self._objects.delete_async(self.name(account_id, digest))
        except FileNotFoundError:
            return
        except (OSError, obstore.exceptions.BaseError) as problem:
            raise _away(problem) from problem

    async def head(self, account_id: UUID, digest: bytes, length: int) -> bytes:
        """The first `length` bytes, or all when there are fewer."""
        return b"".join([piece async for piece in self.read(account_id, digest, 0, length)])

    def _cipher(self, account_id: UUID, salt: bytes) -> AESGCM:
        return AESGCM(derive(self._key, b"artifact/seal/" + account_id.bytes, salt=salt))

    async def _get(self, name: str, start: int, stop: int) -> bytes:
        try:
            return bytes(await self._objects.get_range_async(name, start=start, end=stop))
        except FileNotFoundError:
            raise NotFound("there is no such artifact", remedy="Upload it first") from None
        except (OSError, obstore.exceptions.BaseError) as problem:
            raise _away(problem) from problem

    def _make_durable(self, name: str) -> None:
        """A local store's file and its folder reach the disk before anybody is told that they are stored."""
        if not isinstance(self._objects, LocalStore):
            return
        path = Path(str(self._objects.prefix)) / name
        for target in (path, path.parent, path.parent.parent):
            handle = os.open(target, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _away(problem: BaseException) -> Unavailable:
    said = str(problem) or type(problem).__name__
    log.warning("artifact.store_failed", extra={"problem": said.splitlines()[0][:200]})
    return Unavailable("the artifact store does not answer", remedy="Try again in a few seconds")


def _position(segment: int) -> int:
    return HEADER_BYTES + segment * (SEGMENT_BYTES + TAG_BYTES)


def _total(size: int) -> int:
    return HEADER_BYTES + size + TAG_BYTES * -(-size // SEGMENT_BYTES)


def _nonce(segment: int) -> bytes:
    return segment.to_bytes(12, "big")


def _check_content(staged: Path, digest: bytes, size_bytes: int) -> None:
    with staged.open("rb") as source:
        found = hashlib.file_digest(source, "sha256")
        size = source.tell()
    if found.digest() != digest or size != size_bytes:
        raise InvalidInput(
            "digest",
            f"the {size} uploaded bytes have SHA-256 {found.hexdigest()}, not the announced one",
            "Upload again from the start; announce the SHA-256 of the file's bytes",
        )


def _sealed(staged: Path, cipher: AESGCM, header: bytes, name: str) -> Generator[bytes, None, None]:
    """The object's bytes, a batch of segments at a time."""
    context = header + name.encode()
    with staged.open("rb") as source:
        yield header
        for first in itertools.count(0, _BATCH):
            plain = [source.read(SEGMENT_BYTES) for _ in range(_BATCH)]
            if not plain[0]:
                return
            yield b"".join(cipher.encrypt(_nonce(first + n), part, context) for n, part in enumerate(plain) if part)


async def _from_threads(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


def _unseal(cipher: AESGCM, header: bytes, name: str, first: int, sealed: bytes) -> bytes:
    context, step = header + name.encode(), SEGMENT_BYTES + TAG_BYTES
    starts = range(0, len(sealed), step)
    return b"".join(
        cipher.decrypt(_nonce(first + number), sealed[at : at + step], context) for number, at in enumerate(starts)
    )
