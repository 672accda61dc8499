# SPDX-License-Identifier: Apache-2.0
"""One decorator per route: who may ask, what is taken, what is answered; it checks, decodes and documents.

    @route(api, "POST", "/jobs", scope="user", body=JobBody, answer=JobView, status=201)
    async def submit_job(who: Principal, body: JobBody) -> JobView: ...

A handler gets `who` when the route has a scope, `body` and `query` when it takes them, and the parts of its path.
"""

import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

import msgspec
from quart import Blueprint, Quart, Response, request
from quart.wrappers import Response as QuartResponse
from quart_schema import document_querystring, document_request, document_response, operation_id, security_scheme, tag
from werkzeug.datastructures import Headers

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.errors import Forbidden, InvalidInput, Unauthorised
from qubix_coordinator.http import cookies
from qubix_coordinator.http.context import here
from qubix_coordinator.http.openapi import Binary
from qubix_coordinator.http.problems import MalformedBody, WrongMedia
from qubix_coordinator.http.rates import asker_of
from qubix_protocol.api import Problem

Handler = Callable[..., Awaitable[Any]]
T = TypeVar("T")
JSON: Final = "application/json"
_BEARER: Final = "bearer "
TOKEN_REMEDY: Final = "Sign in with a wallet (POST /api/v1/wallet/challenge), or send Authorization: Bearer TOKEN"  # noqa: S105


def route(
    api: Blueprint | Quart,
    method: str,
    path: str,
    *,
    answer: type[Any],
    group: str,
    scope: str | tuple[str, ...] = "",
    visitors: bool = False,
    body: type[Any] | None = None,
    query: type[Any] | None = None,
    status: int = 200,
) -> Callable[[Handler], Handler]:
    """One scope of several suffices. With `visitors` nobody needs to have one: `who` is None for whoever shows none.
    `body` or `answer` may be `openapi.Binary`: the handler then reads or makes it itself."""

    def register(handler: Handler) -> Handler:
        @functools.wraps(handler)
        async def view(**given: Any) -> QuartResponse:
            if scope:
                given["who"] = await (looker if visitors else asker)(scope, request.method, request.headers)
            if query is not None:
                given["query"] = decode_query(query)
            else:
                _refuse_query()
            if body is not None and not issubclass(body, Binary):
                given["body"] = await decode_body(body)
            visits = visitors and given["who"] is None
            async with here().doors.visits.one(asker_of(request.remote_addr)) if visits else contextlib.nullcontext():
                return as_response(await handler(**given), status)

        documented = document_response(answer, status)(document_response(Problem, cast(int, "default"))(view))
        documented = operation_id(handler.__name__)(tag([group])(documented))
        if scope:
            documented = security_scheme([{"token": []}, *([{}] if visitors else [])])(documented)
        if body is not None:
            documented = document_request(body)(documented)
        if query is not None:
            documented = document_querystring(query)(documented)
        api.add_url_rule(path, view_func=documented, methods=[method])
        return handler

    return register


def as_response(answer: Any, status: int = 200) -> QuartResponse:
    if isinstance(answer, QuartResponse):
        return answer
    return Response(msgspec.json.encode(answer), status, content_type=JSON)


async def asker(scope: str | tuple[str, ...], method: str, headers: Headers) -> Principal:
    """Who asks: by the token in the headers, or by a page's cookie. Raises Unauthorised or Forbidden."""
    scope = reading(scope) if method in cookies.SAFE else scope
    token = "" if "Authorization" in headers else cookies.token_of(headers)
    if not token:
        return await bearer(scope, headers)
    cookies.check_write(method, headers, token)
    return await principal(token, scope)


async def looker(scope: str | tuple[str, ...], method: str, headers: Headers) -> Principal | None:
    """None: a visitor, counted by address. A cookie that opens nothing (any more) makes one, too; a token in the
    headers must open what it is sent for. Raises Unauthorised, Forbidden or LimitExceeded."""
    if "Authorization" in headers:
        return await asker(scope, method, headers)
    if cookies.token_of(headers):
        with contextlib.suppress(Unauthorised, Forbidden):
            return await asker(scope, method, headers)
    here().doors.look(asker_of(request.remote_addr), here().clock.monotonic_s())
    return None


def reading(scope: str | tuple[str, ...]) -> tuple[str, ...]:
    """What opens a request that only looks."""
    enough = (scope,) if isinstance(scope, str) else scope
    return (*enough, "read") if "user" in enough else enough


async def bearer(scope: str | tuple[str, ...], headers: Headers) -> Principal:
    """Who the token in the headers speaks for. Raises Unauthorised or Forbidden."""
    header = headers.get("Authorization", "")
    if not header.lower().startswith(_BEARER):
        raise Unauthorised("a token is needed", field="Authorization", remedy=TOKEN_REMEDY)
    return await principal(header[len(_BEARER) :].strip(), scope)


async def principal(token: str, scope: str | tuple[str, ...]) -> Principal:
    """With one of the scopes."""
    found = await here().db.run(lambda tx: accounts.authenticate(tx, token))
    enough = (scope,) if isinstance(scope, str) else scope
    if found.scopes.isdisjoint(enough):
        raise Forbidden(
            f"the token has no scope {' or '.join(map(repr, enough))}",
            field="Authorization",
            remedy=f"Use a token with the scope {' or '.join(enough)}",
        )
    return found


async def decode_body(kind: type[T]) -> T:
    """The JSON body, whose size Quart has bounded before it read it. Raises what `problems` tells about."""
    if request.mimetype not in (JSON, ""):
        raise WrongMedia("Content-Type", f"{request.mimetype[:100]!r} is not taken here", f"Send {JSON}")
    data = await request.get_data()
    assert isinstance(data, bytes)
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedBody("body", str(error), "Send one JSON value in UTF-8") from None


def decode_query(kind: type[T]) -> T:
    """The query string; what is not in `kind`, or comes twice, is refused and never ignored."""
    given = request.args.to_dict(flat=False)
    for name, values in given.items():
        if len(values) > 1:
            raise InvalidInput(name[:100], "given more than once", "Give it once")
    return msgspec.convert({name: values[0] for name, values in given.items()}, kind, strict=False)


def _refuse_query() -> None:
    for name in request.args:
        raise InvalidInput(name[:100], "this route takes no such query parameter", "Remove it from the address")
