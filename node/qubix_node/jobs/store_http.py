# SPDX-License-Identifier: Apache-2.0
"""The artifact store over HTTP: `GET | HEAD | PUT {artifact_url}/{digest}`, each request signed for one attempt."""

import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import httpx
import trio

from qubix_mesh.rules import backoff_s
from qubix_node.errors import NotLinked, StoreRefused, StoreUnavailable, WrongContent
from qubix_node.files import open_plain
from qubix_node.jobs.store import Artifact, digest_of, size_of
from qubix_protocol.messages import ArtifactRequest

log = logging.getLogger("qubix_node")
PATIENCE_S: Final = 120.0
"""How long the store may be away before an attempt gives up on it."""
_REQUEST_S: Final = 60.0
_PART_BYTES: Final = 4 * 1024 * 1024
"""One PUT, so that one request is always over in reasonable time."""
_BLOCK_BYTES: Final = 1024 * 1024
_BACKOFF_MAX_S: Final = 3.0
_MAY_PASS: Final = frozenset({401, 408, 409, 425, 429})
"""401: the session, and with it the pass, was renewed meanwhile. 409: another request for it is still under way."""

Authorise = Callable[[ArtifactRequest], Awaitable[tuple[str, str]]]
"""The store's address and the `Authorization` header for one request. Raises `NotLinked`."""


class _Again(Exception):
    """This try failed in a way that may pass."""


class HttpStore:
    """A `store.ArtifactStore`."""

    def __init__(self, client: httpx.AsyncClient, authorise: Authorise, *, patience_s: float = PATIENCE_S) -> None:
        self._client, self._authorise, self._patience_s = client, authorise, patience_s
        self._chance = random.Random()  # noqa: S311  spreads retries, guards nothing

    async def fetch(self, artifact: Artifact, into: Path) -> None:
        try:
            await self._persist(self._fetch_some, artifact, into)
            await trio.to_thread.run_sync(_check, artifact, into)
        except WrongContent:
            await trio.to_thread.run_sync(partial(into.unlink, missing_ok=True))
            raise

    async def put(self, artifact: Artifact, path: Path) -> None:
        await self._persist(_Upload(self).go_on, artifact, path)

    async def _persist(self, step: Callable[[Artifact, Path], Awaitable[int]], artifact: Artifact, path: Path) -> None:
        """Repeats `step`, which gives how far it has come in bytes, until that is all. Patience is for standstill."""
        done, failures, give_up_s = 0, 0, trio.current_time() + self._patience_s
        while done < artifact.size_bytes:
            try:
                reached = await step(artifact, path)
            except (_Again, NotLinked) as error:
                if trio.current_time() > give_up_s:
                    raise StoreUnavailable(f"the artifact store does not answer: {error}") from error
                log.debug("store.retry", extra={"digest": artifact.digest.hex()[:16], "reason": str(error)})
                await trio.sleep(backoff_s(failures, self._chance.random(), first_s=0.1, max_s=_BACKOFF_MAX_S))
                failures += 1
                continue
            if reached > done:
                failures, give_up_s = 0, trio.current_time() + self._patience_s
            done = reached

    async def _fetch_some(self, artifact: Artifact, into: Path) -> int:
        """One GET, from where the file ends; the size of the file afterwards."""
        offset = size_of(into)
        if offset >= artifact.size_bytes:
            return offset
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        url, headers = await self.signed("GET", artifact, headers)
        try:
            async with self._client.stream("GET", url, headers=headers, timeout=_REQUEST_S) as response:
                judge(response.status_code)
                _check_announced(response, artifact.size_bytes)
                mode = "ab" if response.status_code == httpx.codes.PARTIAL_CONTENT else "wb"
                with into.open(mode, buffering=0) as file:
                    await _save(response, file, artifact.size_bytes)
        except httpx.HTTPError as error:
            raise _Again(str(error) or type(error).__name__) from error
        return size_of(into)

    async def signed(self, method: str, artifact: Artifact, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
        request = ArtifactRequest(
            method=method,
            digest=artifact.digest,
            size_bytes=artifact.size_bytes,
            attempt_id=artifact.attempt_id,
            fence=artifact.fence,
        )
        base, token = await self._authorise(request)
        return f"{base.rstrip('/')}/{artifact.digest.hex()}", {**headers, "Authorization": token}

    async def send(self, method: str, artifact: Artifact, headers: dict[str, str], content: Any) -> httpx.Response:
        url, headers = await self.signed(method, artifact, headers)
        try:
            return await self._client.request(method, url, headers=headers, content=content, timeout=_REQUEST_S)
        except httpx.HTTPError as error:
            raise _Again(str(error) or type(error).__name__) from error


class _Upload:
    """Where one upload is. It begins without asking; after a fault it asks where to go on."""

    def __init__(self, store: HttpStore) -> None:
        self._store = store
        self._offset = 0
        self._sure = True

    async def go_on(self, artifact: Artifact, path: Path) -> int:
        """One part; how many bytes the store has then."""
        if not self._sure:
            self._offset = await self._ask(artifact)
            self._sure = True
        if self._offset < artifact.size_bytes:
            self._sure = False
            self._offset = await self._put_part(artifact, path)
            self._sure = True
        return self._offset

    async def _ask(self, artifact: Artifact) -> int:
        response = await self._store.send("HEAD", artifact, {}, None)
        if response.status_code == httpx.codes.NOT_FOUND:
            return 0
        judge(response.status_code)
        return min(_offset(response, 0), artifact.size_bytes)

    async def _put_part(self, artifact: Artifact, path: Path) -> int:
        part = await trio.to_thread.run_sync(_read_part, path, self._offset)
        last = self._offset + len(part) - 1
        headers = {
            "Content-Range": f"bytes {self._offset}-{last}/{artifact.size_bytes}",
            "Content-Type": "application/octet-stream",
        }
        response = await self._store.send("PUT", artifact, headers, part)
        judge(response.status_code)
        return last + 1


def judge(status: int) -> None:
    """Raises `StoreRefused` for what will not change, `_Again` for what may."""
    if status in _MAY_PASS or status >= 500:
        raise _Again(f"HTTP status {status}")
    if status >= 300:
        raise StoreRefused(f"the artifact store answered with HTTP status {status}")


def _check_announced(response: httpx.Response, size_max: int) -> None:
    """Before the first byte is read. (Leaving a body half read is possible, but litters trio with generators.)"""
    announced = response.headers.get("Content-Length", "0")
    if not announced.isdecimal() or int(announced) > size_max:
        raise WrongContent(f"the store announces {announced} bytes for an artifact of {size_max}")


def _check(artifact: Artifact, path: Path) -> None:
    if digest_of(path) != artifact.digest:
        raise WrongContent(f"the store's bytes for {artifact.digest.hex()[:16]}… have another digest")


def _offset(response: httpx.Response, default: int) -> int:
    text = response.headers.get("Upload-Offset", "")
    return int(text) if text.isdecimal() else default


def _read_part(path: Path, offset: int) -> bytes:
    with open_plain(path) as file:
        file.seek(offset)
        return file.read(_PART_BYTES)


async def _save(response: httpx.Response, file: IO[bytes], size_max: int) -> None:
    """In blocks, each written in a thread. Raises `WrongContent` beyond `size_max`."""
    size = file.seek(0, 2)
    block = bytearray()
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > size_max:
            raise WrongContent(f"the store sends more than the {size_max} bytes that were announced")
        block += piece
        if len(block) >= _BLOCK_BYTES:
            await trio.to_thread.run_sync(file.write, bytes(block))
            block.clear()
    await trio.to_thread.run_sync(file.write, bytes(block))
