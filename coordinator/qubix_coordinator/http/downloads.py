# SPDX-License-Identifier: Apache-2.0
"""Files to readers: byte ranges, and headers that keep a browser from trusting them (trust D3)."""

import re
from collections.abc import AsyncIterator
from typing import Final, NamedTuple
from uuid import UUID

from quart import Response
from quart.wrappers import Response as QuartResponse

from qubix_coordinator.artifacts.store import ArtifactStore
from qubix_coordinator.http.openapi import Binary
from qubix_coordinator.http.problems import NoSuchRange

FILE_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, no-store",
}
SENT_S_PER_BYTE: Final = 1 / 16_384
"""The slowest reader that is waited for: 16 KiB a second."""
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class ByteRange(NamedTuple):
    start: int
    stop: int


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """One range of a Range header; None when there is none, or one that may be ignored (RFC 9110 §14.2)."""
    matched = _RANGE.fullmatch(header.strip()) if header else None
    if matched is None or matched[0] == "bytes=-":
        return None
    first, last = matched[1], matched[2]
    if not first:
        found = ByteRange(max(0, size - int(last)), size)
    else:
        found = ByteRange(int(first), min(size, int(last) + 1) if last else size)
    if found.start >= found.stop:
        raise NoSuchRange("Range", f"the content has {size} bytes", "Ask for a range inside it")
    return found


async def send(store: ArtifactStore, account_id: UUID, digest: bytes, size: int, wanted: str | None) -> QuartResponse:
    """The content or a range of it. Its first piece is read before the answer starts: failures show as themselves."""
    found = parse_range(wanted, size)
    span = found or ByteRange(0, size)
    pieces = store.read(account_id, digest, span.start, span.stop)
    first = await anext(pieces)
    answer = Response(_after(first, pieces), 206 if found else 200, content_type=Binary.media)
    answer.headers.update(
        {
            **FILE_HEADERS,
            "Accept-Ranges": "bytes",
            "Content-Disposition": f'attachment; filename="{digest.hex()[:16]}"',
            "Content-Length": str(span.stop - span.start),
            "ETag": f'"{digest.hex()}"',
        }
    )
    if found:
        answer.headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
    answer.timeout = 60 + (span.stop - span.start) * SENT_S_PER_BYTE
    return answer


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
