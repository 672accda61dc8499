# SPDX-License-Identifier: Apache-2.0
"""An input that is a link: fetched into the data folder, within limits."""

import asyncio
import hashlib
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from qubix.errors import BadUsage
from qubix_protocol.units import ARTIFACT_BYTES_MAX

_TIMEOUT_S: Final = 30.0


async def fetched(url: str, folder: Path, *, field: str, limit_bytes: int = ARTIFACT_BYTES_MAX) -> Path:
    """The file, whole or not at all, by a name made of its link. Raises `BadUsage`."""
    path, part = _paths(url, folder)
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=True) as client:
            await _stream(client, url, part, limit_bytes, field)
        _keep(part, path)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        words = (str(error).splitlines() or [type(error).__name__])[0]
        problem = f"{url[:200]} cannot be fetched ({words})"
        raise BadUsage(field, problem, "Check the link, or give a file on this machine.") from None
    finally:
        _forget(part)
    return path


def _paths(url: str, folder: Path) -> tuple[Path, Path]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}{Path(urlsplit(url).path).suffix[:10]}"
    return path, path.with_suffix(".part")


def _keep(part: Path, path: Path) -> None:
    part.replace(path)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)


async def _stream(client: httpx.AsyncClient, url: str, part: Path, limit_bytes: int, field: str) -> None:
    size = 0
    async with client.stream("GET", url) as answer:
        answer.raise_for_status()
        with part.open("wb") as file:
            async for piece in answer.aiter_bytes():
                size += len(piece)
                if size > limit_bytes:
                    raise BadUsage(field, f"{url[:200]} is larger than {limit_bytes:,} bytes", "Give a smaller input.")
                await asyncio.to_thread(file.write, piece)
