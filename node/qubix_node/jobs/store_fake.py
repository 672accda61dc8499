# SPDX-License-Identifier: Apache-2.0
"""An artifact store in memory, with faults on demand."""

import hashlib
from pathlib import Path

import trio

from qubix_node.errors import StoreRefused, StoreUnavailable, WrongContent
from qubix_node.jobs.store import Artifact, digest_of


class FakeStore:
    """A `store.ArtifactStore`. `faults` calls fail first; after `puts_allowed` uploads the next one hangs, until
    `go_on`."""

    def __init__(self) -> None:
        self.content: dict[bytes, bytes] = {}
        self.asked: list[tuple[str, Artifact]] = []
        self.faults = 0
        self.puts_allowed: int | None = None
        self.refuses: set[bytes] = set()
        self._goes_on = trio.Event()

    def add(self, data: bytes) -> bytes:
        """Its digest."""
        digest = hashlib.sha256(data).digest()
        self.content[digest] = data
        return digest

    def go_on(self) -> None:
        """For every upload that hangs, and all that follow."""
        self.puts_allowed = None
        self._goes_on.set()

    async def fetch(self, artifact: Artifact, into: Path) -> None:
        await self._step("fetch", artifact)
        data = self.content.get(artifact.digest)
        if data is None:
            raise StoreRefused("no such artifact")
        await trio.Path(into).write_bytes(data)
        if len(data) != artifact.size_bytes or await trio.to_thread.run_sync(digest_of, into) != artifact.digest:
            await trio.Path(into).unlink()
            raise WrongContent("the content is not what its digest says")

    async def put(self, artifact: Artifact, path: Path) -> None:
        await self._step("put", artifact)
        if self.puts_allowed is not None and sum(what == "put" for what, _ in self.asked) > self.puts_allowed:
            await self._goes_on.wait()
        data = await trio.Path(path).read_bytes()
        if hashlib.sha256(data).digest() != artifact.digest or len(data) != artifact.size_bytes:
            raise StoreRefused("the content is not what was announced")
        self.content[artifact.digest] = data

    async def _step(self, what: str, artifact: Artifact) -> None:
        self.asked.append((what, artifact))
        await trio.lowlevel.checkpoint()
        if artifact.digest in self.refuses:
            raise StoreRefused("refused")
        if self.faults:
            self.faults -= 1
            raise StoreUnavailable("the store is away")
