# SPDX-License-Identifier: Apache-2.0
"""Inputs on disk by digest, kept after a job for the next one, oldest use forgotten first."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import trio

from qubix_node.errors import WrongContent
from qubix_node.jobs.store import Artifact, ArtifactStore, size_of

_PART: Final = ".part"


class InputCache:
    """A job gets hard links, so forgetting an input never takes it from a running job."""

    def __init__(self, folder: Path, store: ArtifactStore, limit_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder, self._store, self._limit_bytes = folder, store, limit_bytes
        self._locks: WeakValueDictionary[bytes, trio.Lock] = WeakValueDictionary()
        for part in folder.glob(f"*{_PART}"):
            part.unlink()
        self._trim()

    async def provide(self, artifact: Artifact, at: Path) -> None:
        """The content as the read-only file `at`, fetched unless it is here. Raises `StoreError`."""
        lock = self._locks.setdefault(artifact.digest, trio.Lock())
        async with lock:
            kept = self._folder / artifact.digest.hex()
            if await trio.to_thread.run_sync(size_of, kept) != artifact.size_bytes:
                await self._fetch(artifact, kept)
            await trio.to_thread.run_sync(_give, kept, at)
        await trio.to_thread.run_sync(self._trim)

    async def _fetch(self, artifact: Artifact, kept: Path) -> None:
        part = kept.with_suffix(_PART)
        try:
            await self._store.fetch(artifact, part)
            if size_of(part) != artifact.size_bytes:
                raise WrongContent(f"{artifact.digest.hex()[:16]}… has not the size that was announced")
            part.chmod(0o400)
            part.replace(kept)
        finally:
            _forget(part)

    def _trim(self) -> None:
        """Forgets until the limit holds. Parts of fetches under way are not counted: each is one input's."""
        found = []
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if path.suffix != _PART:
                    stat = path.stat()
                    found.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._limit_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)


def _give(kept: Path, at: Path) -> None:
    os.utime(kept)
    at.hardlink_to(kept)
