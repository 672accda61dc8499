# SPDX-License-Identifier: Apache-2.0
"""A statement that somebody signed for this coordinator alone, as the body of a request."""

from quart import request

from qubix_coordinator.errors import InvalidInput
from qubix_coordinator.http.context import here
from qubix_coordinator.http.openapi import Signed
from qubix_coordinator.http.problems import WrongMedia
from qubix_protocol import envelope
from qubix_protocol.envelope import Opened
from qubix_protocol.units import FRAME_BYTES_MAX


async def opened_here() -> Opened:
    """Of the request being handled. Raises WrongMedia, InvalidInput, ProtocolError."""
    if request.mimetype != Signed.media:
        raise WrongMedia("Content-Type", f"{request.mimetype[:100]!r} is not taken here", f"Send {Signed.media}")
    context = here()
    raw = await request.get_data()
    assert isinstance(raw, bytes)
    opened = envelope.open_envelope(
        raw, network=context.network, audience=context.key.public, now_ms=context.now_ms(), limit_bytes=FRAME_BYTES_MAX
    )
    if opened.header.audience == envelope.ANYONE:
        raise InvalidInput("audience", "the statement is not addressed to this coordinator", "Name its key as audience")
    return opened
