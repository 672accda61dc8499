# SPDX-License-Identifier: Apache-2.0
"""What every route shares: JSON in and out, errors as the network's gateways tell them, faults, the word "devnet"."""

import logging
import sqlite3
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from quart import Quart, Response, request
from quart.wrappers import Response as QuartResponse
from werkzeug.exceptions import HTTPException

from qubix_chain.devnet.archive import Json
from qubix_chain.devnet.errors import ApiError, BadRequest, Forbidden, Internal, TooMany
from qubix_chain.devnet.faults import Fault
from qubix_chain.devnet.network import Network

log = logging.getLogger(__name__)
PREFIX: Final = "/devnet/v1"
BODY_BYTES_MAX: Final = 64 * 1024
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_CODES: Final = {400: 3, 404: 5, 405: 12, 408: 4, 413: 8}
_REMEDIES: Final = {404: "Check the path", 405: "Use the method that Allow names", 413: "Send less at once"}


def answer(value: object, status: int = 200) -> QuartResponse:
    return Response(msgspec.json.encode(value), status, content_type="application/json")


def error_answer(code: int, message: str, status: int) -> QuartResponse:
    return answer({"code": code, "message": message, "details": []}, status)


async def body() -> Json:
    """The JSON object that was sent; nothing at all is an empty one."""
    data = await request.get_data()
    assert isinstance(data, bytes)
    try:
        found: Any = msgspec.json.decode(data) if data else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise BadRequest(f"the body is not JSON: {problem}") from None
    if not isinstance(found, dict):
        raise BadRequest("the body must be a JSON object")
    return found


def install(app: Quart, network: Network, broken: Callable[[Exception], None]) -> None:
    """`broken` is told when the ledger cannot be written: what is in memory is then not to be trusted any more."""

    @app.before_request
    async def begin() -> None:
        _refuse_strangers()
        if not request.path.startswith(PREFIX):
            _strike(network)

    @app.after_request
    async def say_devnet(response: QuartResponse) -> QuartResponse:
        response.headers["X-Qubic-Network"] = "devnet"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @app.errorhandler(ApiError)
    async def known(error: ApiError) -> QuartResponse:
        told = error_answer(error.code, str(error), error.status)
        if isinstance(error, TooMany):
            told.headers["Retry-After"] = "1"
        return told

    @app.errorhandler(HTTPException)
    async def routing(error: HTTPException) -> QuartResponse:
        status = error.code or 500
        remedy = _REMEDIES.get(status, "")
        told = error_answer(_CODES.get(status, 13), f"{error.name}. {remedy}".rstrip(" ."), status)
        told.headers.update({name: value for name, value in error.get_headers() if name == "Allow"})
        return told

    @app.errorhandler(sqlite3.Error)
    async def unwritten(error: sqlite3.Error) -> QuartResponse:
        broken(error)
        return error_answer(13, "the devnet's ledger cannot be written; the devnet stops. See its log", 500)

    @app.errorhandler(Exception)
    async def unexpected(error: Exception) -> QuartResponse:
        log.error("devnet.unexpected", extra={"path": request.path}, exc_info=error)
        return error_answer(13, "the devnet met a defect. See its log", 500)


def _refuse_strangers() -> None:
    """A page from elsewhere, opened in this machine's browser, has no business here."""
    host = urlsplit(f"//{request.headers.get('Host', '')}").hostname
    origin = request.headers.get("Origin")
    if host not in _LOOPBACK or (origin is not None and urlsplit(origin).hostname not in _LOOPBACK):
        raise Forbidden("the devnet answers this machine alone. Ask for 127.0.0.1, from a page of this machine")


def _strike(network: Network) -> None:
    fault = network.request_fault(Fault.TOO_MANY_REQUESTS, Fault.SERVER_ERROR)
    if fault is Fault.TOO_MANY_REQUESTS:
        raise TooMany("too many requests (a fault of the devnet's plan)")
    if fault is Fault.SERVER_ERROR:
        raise Internal("internal error (a fault of the devnet's plan)")
