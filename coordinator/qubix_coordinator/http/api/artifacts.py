# SPDX-License-Identifier: Apache-2.0
"""Artifacts: announced, sent in parts that can be resumed, read back by whoever may.

Two kinds of callers: a consumer by its token, and a node by a request that it signed for one attempt, method, digest
and size (`Authorization: Qubix BASE64`, trust D1), or for a test artifact of its own.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from quart import Response, request
from quart.wrappers import Response as QuartResponse

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.artifacts import service
from qubix_coordinator.artifacts.service import check_size
from qubix_coordinator.artifacts.staging import OWNER
from qubix_coordinator.artifacts.uploads import Progress
from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import InvalidInput, NotFound
from qubix_coordinator.http import downloads
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.openapi import Binary
from qubix_coordinator.http.pacing import taken
from qubix_coordinator.http.problems import Stalled
from qubix_coordinator.http.routes import as_response, asker, route
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.trials import probes
from qubix_protocol import envelope
from qubix_protocol.api import ArtifactBody, ArtifactView
from qubix_protocol.errors import Malformed, Replayed, WrongAudience
from qubix_protocol.keys import peer_id
from qubix_protocol.messages import ArtifactRequest
from qubix_protocol.selftest import ProbeRequest

_SIGNED: Final = "qubix "
_HEADER_CHARS_MAX: Final = 8192
_PIECE_S: Final = 30.0
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose data is meant, and who reads or writes it: `OWNER` or an attempt's id. `size_bytes` is what a node signed
    for, None for a consumer."""

    account_id: UUID
    writer: str
    size_bytes: int | None


@route(api, "POST", "/artifacts", scope="user", body=ArtifactBody, answer=ArtifactView, group="artifacts")
async def announce_artifact(who: Principal, body: ArtifactBody) -> ArtifactView:
    """Say what will be uploaded; content that you stored before need not be sent again"""
    found = await here().uploads.announce(who.account_id, bytes.fromhex(body.digest), body.size_bytes)
    return _view(found)


@route(api, "GET", "/artifacts/<digest>", answer=Binary, group="artifacts")
async def read_artifact(digest: str) -> QuartResponse:
    """The content, or a range of it; HEAD tells how far an upload is (Upload-Offset)"""
    content = _digest(digest)
    caller = await _caller(content)
    if request.method == "HEAD":
        return await _head(caller, content)
    context = here()
    found = await context.db.run(lambda tx: service.find(tx, caller.account_id, content))
    if found is None or not found.complete or not (found.readable or caller.writer != OWNER):
        raise _nothing()
    return await downloads.send(
        context.uploads.store, caller.account_id, content, found.size_bytes, request.headers.get("Range")
    )


@route(api, "PUT", "/artifacts/<digest>", body=Binary, answer=ArtifactView, group="artifacts")
async def write_artifact(digest: str) -> QuartResponse:
    """One part at the upload's offset (Content-Range: bytes FIRST-LAST/SIZE), or everything at once"""
    content = _digest(digest)
    caller = await _caller(content)
    first, last, size = _content_range(request.headers.get("Content-Range"), request.content_length)
    if caller.size_bytes not in (None, size):
        raise InvalidInput("Content-Range", "the size is not the one that the request was signed for", "Sign this size")
    done = await here().uploads.receive(
        caller.account_id, content, size, _pieces(), first=first, last=last, writer=caller.writer
    )
    return as_response(_view(done), 201 if done.complete else 200)


async def _head(caller: Caller, content: bytes) -> QuartResponse:
    found = await here().uploads.status(caller.account_id, content, caller.size_bytes, caller.writer)
    if found is None:
        raise _nothing()
    answer = Response(b"", 200, content_type=Binary.media)
    answer.headers["Upload-Offset"] = str(found.offset)
    answer.headers["Upload-Length"] = str(found.size_bytes)
    answer.headers["Upload-Complete"] = "?1" if found.complete else "?0"
    answer.headers["Cache-Control"] = "no-store"
    return answer


async def _caller(content: bytes) -> Caller:
    header = request.headers.get("Authorization", "")
    if header.lower().startswith(_SIGNED):
        return await _node(header[len(_SIGNED) :].strip(), content)
    who = await asker("user", request.method, request.headers)
    return Caller(who.account_id, OWNER, None)


async def _node(token: str, content: bytes) -> Caller:
    """Raises a ProtocolError for a request that is not to be believed, Forbidden for one of an attempt that is over."""
    context = here()
    now_ms = context.now_ms()
    opened = envelope.open_envelope(
        _unarmoured(token), network=context.network, audience=context.key.public, now_ms=now_ms
    )
    if opened.header.audience == envelope.ANYONE:
        raise WrongAudience("the request is not addressed to this coordinator")
    signed = opened.body(ProbeRequest) if opened.header.type == "probe_request" else opened.body(ArtifactRequest)
    context.seen.use(opened.header.sender, opened.sequence, expires_ms=opened.header.expires_ms, now_ms=now_ms)
    if (signed.method, signed.digest) != (request.method, content):
        raise WrongAudience("the request was signed for another method or digest")
    peer = peer_id(opened.header.sender)

    async def permitted(tx: Tx) -> UUID:
        if await accounts.incarnation(tx, peer) != opened.header.incarnation:
            raise Replayed("the request was signed in an earlier session")
        if isinstance(signed, ProbeRequest):
            return await probes.may_access(tx, peer, signed, now_ms=now_ms)
        return await jobs.may_access(tx, peer, signed)

    writer = probes.writer(peer) if isinstance(signed, ProbeRequest) else signed.attempt_id
    return Caller(await context.db.run(permitted), writer, signed.size_bytes)


def _unarmoured(token: str) -> bytes:
    if len(token) > _HEADER_CHARS_MAX:
        raise Malformed("the signed request is too long")
    try:
        return base64.b64decode(token, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("the signed request is not base64") from None


def _digest(text: str) -> bytes:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise InvalidInput("digest", "not a SHA-256 in 64 hexadecimal digits", "Use the digest of the file's bytes")
    return bytes.fromhex(text)


def _content_range(header: str | None, length: int | None) -> tuple[int, int, int]:
    """First, last, size. Without the header the body is everything."""
    if length is None or length < 1:
        raise InvalidInput("Content-Length", "the length of the body is needed", "Send Content-Length, at least 1")
    matched = _CONTENT_RANGE.fullmatch(header.strip()) if header is not None else None
    if header is not None and matched is None:
        raise InvalidInput("Content-Range", f"{header[:100]!r} is not understood", "Send bytes FIRST-LAST/SIZE")
    first, last, size = (int(group) for group in matched.groups()) if matched else (0, length - 1, length)
    check_size(size)
    if last + 1 - first != length or last >= size:
        raise InvalidInput(
            "Content-Range", f"the range does not fit a body of {length} bytes", "Send exactly the bytes FIRST to LAST"
        )
    return first, last, size


async def _pieces() -> AsyncIterator[bytes]:
    """The body as it comes. Raises Stalled when nothing comes for a while: what came is kept."""
    body = request.body
    while True:
        try:
            async with asyncio.timeout(_PIECE_S):
                piece = await anext(body, None)
        except TimeoutError:
            raise Stalled(f"no data came for {_PIECE_S:g} s", field="body", remedy="Resume at Upload-Offset") from None
        if piece is None:
            return
        if piece:
            yield piece
            taken(request.scope, len(piece))


def _view(progress: Progress) -> ArtifactView:
    return ArtifactView(
        digest=progress.digest.hex(),
        size_bytes=progress.size_bytes,
        offset=progress.offset,
        complete=progress.complete,
    )


def _nothing() -> NotFound:
    return NotFound("there is no such artifact of yours", field="digest", remedy="Upload it, or wait until it is paid")
