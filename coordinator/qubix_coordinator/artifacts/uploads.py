# SPDX-License-Identifier: Apache-2.0
"""Uploads from announcement to stored artifact: staging, check, seal, row."""

from collections.abc import AsyncIterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from qubix_coordinator.artifacts import service
from qubix_coordinator.artifacts.keys import derive, load_or_create
from qubix_coordinator.artifacts.service import Artifact, Quota
from qubix_coordinator.artifacts.staging import OWNER, Staging
from qubix_coordinator.artifacts.store import ArtifactStore
from qubix_coordinator.db.database import Database, Tx
from qubix_coordinator.errors import InvalidInput
from qubix_coordinator.settings import Settings
from qubix_protocol.arrays import ArrayMeta, npy_header
from qubix_protocol.errors import Malformed

_HEAD_BYTES: Final = 8192
_NPY_MAGIC: Final = b"\x93NUMPY"
EXPIRED_MAX: Final = 10_000
"""Announcements forgotten at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far one writer's upload is. A complete one needs nothing more."""

    digest: bytes
    size_bytes: int
    offset: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Uploads:
    """`writer` is `staging.OWNER` or the id of the attempt whose output is uploaded."""

    db: Database
    store: ArtifactStore
    staging: Staging
    quota: Quota
    unfinished_s: float
    """An upload that nobody goes on with for so long is forgotten."""

    @classmethod
    def open(cls, db: Database, store: ArtifactStore, settings: Settings) -> "Uploads":
        key = derive(load_or_create(settings.data_dir / "artifact.key"), b"artifact/staging")
        quota = Quota(bytes_max=settings.artifact_quota_bytes, artifacts_max=settings.artifact_quota_count)
        return cls(db, store, Staging(settings.data_dir / "staging", key), quota, settings.upload_keep_s)

    async def announce(self, account_id: UUID, digest: bytes, size_bytes: int, writer: str = OWNER) -> Progress:
        """Where the upload starts or goes on. Raises InvalidInput or LimitExceeded."""
        if writer == OWNER:
            found = await self.db.run(lambda tx: service.announce(tx, account_id, digest, size_bytes, self.quota))
            complete = found.usable
        else:
            complete = await self.db.run(lambda tx: _announce_output(tx, account_id, digest, size_bytes, writer))
        if complete:
            return Progress(digest=digest, size_bytes=size_bytes, offset=size_bytes, complete=True)
        return await self._resume(account_id, digest, size_bytes, writer)

    async def status(self, account_id: UUID, digest: bytes, size_bytes: int | None, writer: str) -> Progress | None:
        """How far an upload is. None without `size_bytes` when nobody announced it; with it, an upload starts at 0."""
        found = await self.db.run(lambda tx: _visible(tx, account_id, digest, writer))
        size = found.size_bytes if found and size_bytes is None else size_bytes
        if size is None:
            return None
        if found and (found.usable or writer != OWNER):
            return Progress(digest=digest, size_bytes=found.size_bytes, offset=found.size_bytes, complete=True)
        return await self._resume(account_id, digest, size, writer)

    async def receive(
        self,
        account_id: UUID,
        digest: bytes,
        size_bytes: int,
        pieces: AsyncIterable[bytes],
        *,
        first: int,
        last: int,
        writer: str = OWNER,
    ) -> Progress:
        """Takes bytes [first, last]; the part that completes the upload also checks and stores it.

        Raises WrongOffset, Conflict (another upload of it is under way) or InvalidInput; after a wrong digest the
        upload starts again from nothing.
        """
        so_far = await self.announce(account_id, digest, size_bytes, writer)
        if so_far.complete:
            return so_far
        path = self.staging.path(account_id, digest, writer)
        async with self.staging.locked(path) as out:
            offset = await self.staging.append(out, pieces, first=first, last=last)
            complete = offset == size_bytes and await self._finish(account_id, digest, size_bytes, path, writer)
        return Progress(digest=digest, size_bytes=size_bytes, offset=offset, complete=complete)

    async def expire(self) -> int:
        """Removes uploads that nobody goes on with, and what was given up. Call it now and then. Gives how many."""
        removed = await self.staging.expire(self.unfinished_s)
        for _ in range(EXPIRED_MAX):
            if not await self.db.run(self._forget_one):
                break
            removed += 1
        return removed

    async def _forget_one(self, tx: Tx) -> bool:
        """First the object, then its row: an object without a row would stay for ever."""
        found = await service.lock_unfinished(tx, self.unfinished_s)
        if found is None:
            return False
        await self.store.delete(*found)
        await service.forget(tx, *found)
        return True

    async def _resume(self, account_id: UUID, digest: bytes, size_bytes: int, writer: str) -> Progress:
        """A crash can leave a staging file that has all its bytes: it is finished here."""
        path = self.staging.path(account_id, digest, writer)
        offset, complete = self.staging.offset(path), False
        if offset > size_bytes:
            # Begun when the content was announced as larger.
            await self.staging.discard(path)
            offset = 0
        if offset == size_bytes:
            async with self.staging.locked(path):
                complete = await self._finish(account_id, digest, size_bytes, path, writer)
        return Progress(digest=digest, size_bytes=size_bytes, offset=offset, complete=complete)

    async def _finish(self, account_id: UUID, digest: bytes, size_bytes: int, path: Path, writer: str) -> bool:
        try:
            await self.store.finish_upload(account_id, digest, size_bytes, path)
        except InvalidInput:
            await self.staging.discard(path)
            raise
        attempt = None if writer == OWNER else writer
        meta = npy_meta(await self.store.head(account_id, digest, _HEAD_BYTES), size_bytes)
        await self.db.run(lambda tx: service.mark_stored(tx, account_id, digest, size_bytes, meta, writer=attempt))
        await self.staging.discard(path)
        return True


async def _announce_output(tx: Tx, account_id: UUID, digest: bytes, size_bytes: int, writer: str) -> bool:
    """Whether the attempt itself has sent it already."""
    await service.announce_output(tx, account_id, digest, size_bytes, writer)
    return await service.sent_by(tx, account_id, digest, writer) is not None


async def _visible(tx: Tx, account_id: UUID, digest: bytes, writer: str) -> Artifact | None:
    if writer == OWNER:
        return await service.find(tx, account_id, digest)
    return await service.sent_by(tx, account_id, digest, writer)


def npy_meta(head: bytes, size_bytes: int) -> ArrayMeta | None:
    """The form of a whole `.npy` file; None when it is not one, or not of the size that its header promises."""
    if not head.startswith(_NPY_MAGIC):
        return None
    try:
        meta, start = npy_header(head)
    except Malformed:
        return None
    return meta if start + meta.nbytes == size_bytes else None
