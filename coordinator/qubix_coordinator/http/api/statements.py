# SPDX-License-Identifier: Apache-2.0
"""The way past every gateway (trust P4): a node brings by HTTPS what was not acknowledged over the mesh."""

from typing import Final

from quart import Response, request
from quart.wrappers import Response as QuartResponse

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Tx
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import Context, here
from qubix_coordinator.http.openapi import Signed
from qubix_coordinator.http.problems import WrongMedia
from qubix_coordinator.http.routes import route
from qubix_coordinator.jobs import service as jobs
from qubix_protocol import envelope
from qubix_protocol.envelope import Opened
from qubix_protocol.errors import Malformed, Replayed, WrongAudience
from qubix_protocol.keys import peer_id
from qubix_protocol.messages import Acknowledged, Progress, Report
from qubix_protocol.units import FRAME_BYTES_MAX

_ANSWER_MS: Final = 60_000


@route(api, "POST", "/nodes/statements", body=Signed, answer=Signed, group="network")
async def bring_statement() -> QuartResponse:
    """A node's signed link or report, where no gateway passes it on; answered by its signed acknowledgement"""
    if request.mimetype != Signed.media:
        raise WrongMedia("Content-Type", f"{request.mimetype[:100]!r} is not taken here", f"Send {Signed.media}")
    context = here()
    raw = await request.get_data()
    assert isinstance(raw, bytes)
    opened = _opened(context, raw)
    await context.db.run(lambda tx: _of_this_session(tx, opened))
    told = await _take(context, peer_id(opened.header.sender), opened)
    context.mesh.nudge()
    return Response(_answer(context, opened, told), 200, content_type=Signed.media)


def _opened(context: Context, raw: bytes) -> Opened:
    """Once, and addressed to this coordinator. Raises a ProtocolError."""
    now_ms = context.now_ms()
    opened = envelope.open_envelope(
        raw, network=context.network, audience=context.key.public, now_ms=now_ms, limit_bytes=FRAME_BYTES_MAX
    )
    if opened.header.audience == envelope.ANYONE:
        raise WrongAudience("the statement is not addressed to this coordinator")
    context.seen.use(opened.header.sender, opened.sequence, expires_ms=opened.header.expires_ms, now_ms=now_ms)
    return opened


async def _of_this_session(tx: Tx, opened: Opened) -> None:
    if await accounts.incarnation(tx, peer_id(opened.header.sender)) != opened.header.incarnation:
        raise Replayed("the statement was signed in an earlier session")


async def _take(context: Context, peer: str, opened: Opened) -> Acknowledged:
    """What is durable when this returns. The same statement may have come over the mesh, or come there yet."""
    if opened.header.type == "report":
        return await jobs.on_report(context.desk, peer, opened.body(Report), opened.raw)
    if opened.header.type != "progress":
        raise Malformed(f"{opened.header.type!r} is not brought by HTTPS: links and reports are")
    acknowledged = await jobs.on_progress(context.desk, peer, opened.body(Progress), opened.raw)
    if acknowledged is None:
        raise Malformed("progress without a link asks for no acknowledgement")
    return acknowledged


def _answer(context: Context, asked: Opened, told: Acknowledged) -> bytes:
    """With the sequence of what it answers: it cannot be taken for another statement's."""
    return envelope.seal(
        told,
        context.key,
        network=context.network,
        audience=asked.header.sender,
        incarnation=asked.header.incarnation,
        counter=asked.header.counter,
        expires_ms=context.now_ms() + _ANSWER_MS,
    )
