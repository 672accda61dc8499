# SPDX-License-Identifier: Apache-2.0
"""Every failure as `application/problem+json` (RFC 9457). The only place that knows HTTP statuses.

A class of error has the status of its nearest ancestor in STATUSES.
"""

import logging
import re
import uuid
from typing import Any, Final, NamedTuple

import msgspec
from quart import Quart, Response, has_request_context, has_websocket_context, request, websocket
from quart.wrappers import Response as QuartResponse
from werkzeug.exceptions import HTTPException

from qubix_coordinator import errors
from qubix_coordinator.db import failures
from qubix_protocol import errors as protocol
from qubix_protocol.api import FieldProblem, Problem
from qubix_protocol.query import QueryError

log = logging.getLogger(__name__)
CONTENT_TYPE: Final = "application/problem+json"
CHALLENGE: Final = 'Bearer realm="qubix"'
_RETRY_S: Final = 2


class Kind(NamedTuple):
    status: int
    title: str


class MalformedBody(errors.InvalidInput):
    """The body is not JSON or MessagePack at all."""


class BodyTooLarge(errors.InvalidInput):
    """Refused by its size, before it was read."""


class NoSuchRange(errors.InvalidInput):
    """The byte range lies outside the content."""


class Stalled(errors.Refused):
    """The body stopped coming."""


class WrongMedia(errors.InvalidInput):
    """The body is of another type than this route takes."""


_NO_TEXT: Final = frozenset({"22021", "22P05"})
"""PostgreSQL's word for characters that it cannot keep."""
STATUSES: Final[dict[type[Exception], Kind]] = {
    errors.Refused: Kind(400, "The request cannot be granted"),
    errors.InvalidInput: Kind(422, "A value in the request is not usable"),
    MalformedBody: Kind(400, "The body cannot be read"),
    BodyTooLarge: Kind(413, "The body is too large"),
    Stalled: Kind(408, "The body did not arrive"),
    NoSuchRange: Kind(416, "The content has no such range"),
    WrongMedia: Kind(415, "The body is of a type that is not taken here"),
    errors.Unauthorised: Kind(401, "Who asks is not known"),
    errors.Forbidden: Kind(403, "This is not allowed"),
    errors.NotProven: Kind(403, "The wallet's proof is not accepted"),
    errors.NotFound: Kind(404, "There is no such thing here"),
    errors.Conflict: Kind(409, "The state of things does not allow this"),
    errors.NotEnoughBalance: Kind(402, "The balance does not cover this"),
    errors.HoldOverspent: Kind(409, "The hold does not cover this"),
    errors.LimitExceeded: Kind(429, "A limit is reached"),
    errors.Fault: Kind(500, "Something is wrong on our side"),
    errors.Unavailable: Kind(503, "Not available at the moment"),
    protocol.ProtocolError: Kind(400, "The signed statement cannot be used"),
    protocol.TooLarge: Kind(413, "The signed statement is too large"),
    QueryError: Kind(422, "The query line cannot be understood"),
    protocol.NotGenuine: Kind(401, "The signed statement is not to be believed"),
}
_REMEDIES: Final = {
    400: "Correct the request; /live is opened as a WebSocket",
    404: "Check the path; /openapi.json lists all of them",
    405: "Use a method that Allow lists",
    406: "Ask for application/json",
    408: "Send the body without long pauses",
    413: "Send less at once",
    415: "Send the Content-Type that /openapi.json names for this route",
    429: "Wait a moment, then try again",
}


_FIELDS: Final = {404: "path", 405: "method", 408: "body", 413: "body", 415: "Content-Type"}
"""What was wrong with a request that Quart refused before any of our code saw it."""
_STATEMENT_REMEDIES: Final[dict[type[Exception], str]] = {
    protocol.WrongNetwork: "Use the network that GET /api/v1/network names",
    protocol.WrongAudience: "Sign it for the coordinator's key, and for this very request",
    protocol.WrongVersion: "Use a version of QUBIX that speaks this protocol version",
    protocol.Expired: "Take the time from GET /api/v1/network and sign again",
    protocol.Replayed: "Sign anew, under the incarnation of the live session and with a new counter",
    protocol.BadSignature: "Sign with the key of the peer that speaks",
    protocol.NotGenuine: "Sign anew, after a handshake",
    protocol.ProtocolError: "Send one MessagePack envelope as qubix_protocol.envelope describes it",
}


def kind_of(error: type[BaseException]) -> Kind:
    """Raises LookupError for a class outside the trees above."""
    for found in error.__mro__:
        if found in STATUSES:
            return STATUSES[found]
    raise LookupError(f"{error.__name__} is not an error that may be told as it is")


def code_of(error: type[BaseException]) -> str:
    """`InvalidInput` → `invalid_input`; a protocol error's own code."""
    if issubclass(error, protocol.ProtocolError):
        return error.code
    return re.sub(r"(?<!^)(?=[A-Z])", "_", error.__name__).lower()


def problem_of(error: BaseException) -> Problem:
    """What is told about one of our own errors. Others are `unexpected`'s."""
    if isinstance(error, msgspec.ValidationError):
        return _invalid(error)
    kind, code = kind_of(type(error)), code_of(type(error))
    return Problem(
        type=f"urn:qubix:problem:{code}",
        title=kind.title,
        status=kind.status,
        code=code,
        detail=str(error),
        remedy=getattr(error, "remedy", "") or _statement_remedy(error) or _REMEDIES.get(kind.status, ""),
        field=getattr(error, "field", ""),
        column=getattr(error, "column", None),
        length=getattr(error, "length", None),
    )


def _statement_remedy(error: BaseException) -> str:
    return next((_STATEMENT_REMEDIES[kind] for kind in type(error).__mro__ if kind in _STATEMENT_REMEDIES), "")


def field_of(error: msgspec.ValidationError) -> tuple[str, str]:
    """The path of the field that is wrong, such as `inputs.a.size_bytes`, and what is wrong with it."""
    text, _, at = str(error).partition(" - at `")
    path = re.sub(r"^\$\.?|`.*$", "", at)
    named = re.search(r"(?:unknown|required) field `(.+)`", text)
    if named:
        path = f"{path}.{named[1]}" if path else named[1]
    return path or "body", text


def _invalid(error: msgspec.ValidationError) -> Problem:
    kind, (field, text) = STATUSES[errors.InvalidInput], field_of(error)
    remedy = _remedy(text)
    return Problem(
        type="urn:qubix:problem:invalid_input",
        title=kind.title,
        status=kind.status,
        code="invalid_input",
        detail=text,
        remedy=remedy,
        field=field,
        problems=(FieldProblem(field=field, problem=text, remedy=remedy),),
    )


def _remedy(text: str) -> str:
    if "unknown field" in text:
        return "Remove the field, or correct its name: /openapi.json lists those that exist"
    if "missing required field" in text:
        return "Add the field"
    if expected := re.match(r"Expected (.+?)(?:, got .+)?$", text):
        return f"Give {expected[1]}"
    return "Give a value that /openapi.json allows here"


def response(problem: Problem, headers: dict[str, str] | None = None) -> QuartResponse:
    answer = Response(msgspec.json.encode(problem), problem.status, content_type=CONTENT_TYPE)
    answer.headers.update(headers or {})
    if problem.status == 401:
        answer.headers["WWW-Authenticate"] = CHALLENGE
    return answer


def _headers(error: BaseException) -> dict[str, str]:
    if isinstance(error, errors.LimitExceeded) and error.retry_after_s is not None:
        return {"Retry-After": str(max(1, round(error.retry_after_s)))}
    if isinstance(error, errors.Unavailable):
        return {"Retry-After": str(_RETRY_S)}
    offset = getattr(error, "offset", None)
    return {} if offset is None else {"Upload-Offset": str(offset)}


def _path() -> str:
    if has_request_context():
        return request.path
    return websocket.path if has_websocket_context() else ""


async def _known(error: Exception) -> QuartResponse:
    found = problem_of(error)
    if found.status >= 500:
        log.warning("http.fault", extra={"code": found.code, "problem": str(error), "path": _path()})
    return response(found, _headers(error))


async def of_routing(error: HTTPException) -> QuartResponse:
    """404, 405, 408, 413 and the like, raised by Quart itself."""
    status = error.code or 500
    code = re.sub(r"\W+", "_", error.name).lower()
    found = Problem(
        type=f"urn:qubix:problem:{code}",
        title=error.name,
        status=status,
        code=code,
        detail=error.description or "",
        remedy=_REMEDIES.get(status, ""),
        field=_FIELDS.get(status, ""),
    )
    kept = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
    return response(found, kept)


async def unexpected(error: Exception) -> QuartResponse:
    """A defect of ours: the caller gets a number to name, the log gets the rest; but for text that cannot be kept."""
    if failures.sqlstate(error) in _NO_TEXT:
        return await _known(errors.InvalidInput("", "a text holds a NUL character", "Take it out, and ask again"))
    instance = f"urn:uuid:{uuid.uuid4()}"
    log.error("http.unexpected", extra={"instance": instance, "path": _path()}, exc_info=error)
    found = Problem(
        type="urn:qubix:problem:unexpected",
        title="Something is wrong on our side",
        status=500,
        code="unexpected",
        detail="the request met a defect; it was logged",
        remedy="Try again; if it stays, tell the operator the number in `instance`",
        instance=instance,
    )
    return response(found)


def install(app: Quart) -> None:
    handlers: dict[type[Exception], Any] = {
        errors.QubixError: _known,
        protocol.ProtocolError: _known,
        msgspec.ValidationError: _known,
        HTTPException: of_routing,
        Exception: unexpected,
    }
    for kind, handler in handlers.items():
        app.register_error_handler(kind, handler)
