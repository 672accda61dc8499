# SPDX-License-Identifier: Apache-2.0
"""The session of a page: a token goes in once and stays in a cookie that no script reads."""

import msgspec
from quart import Response, request

from qubix_coordinator.accounts import sessions
from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.http import cookies, money
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.routes import JSON, principal, route
from qubix_protocol.api import PageSessionBody, PageSessionView


@route(api, "POST", "/session", body=PageSessionBody, answer=PageSessionView, status=201, group="page")
async def begin_page_session(body: PageSessionBody) -> Response:
    """Keep a token for this browser's pages, in a cookie that no script reads"""
    cookies.check_origin(request.headers)
    who = await principal(body.token, cookies.SCOPES)
    answer = Response(msgspec.json.encode(await _view(who, body.token)), 201, content_type=JSON)
    answer.headers["Set-Cookie"] = cookies.made(body.token, request.headers.get("Host", ""))
    answer.headers["Cache-Control"] = "no-store"
    return answer


@route(api, "GET", "/session", scope=cookies.SCOPES, visitors=True, answer=PageSessionView, group="page")
async def get_page_session(who: Principal | None) -> Response:
    """Who is signed in here, if anybody is, and the value that a page's writes carry"""
    token = cookies.token_of(request.headers)
    view = PageSessionView(account=None, csrf="") if who is None else await _view(who, token)
    answer = Response(msgspec.json.encode(view), content_type=JSON)
    if who is None and token:
        answer.headers["Set-Cookie"] = cookies.ended(request.headers.get("Host", ""))
    answer.headers["Cache-Control"] = "no-store"
    return answer


@route(api, "DELETE", "/session", scope=cookies.SCOPES, answer=PageSessionView, group="page")
async def end_page_session(who: Principal) -> Response:
    """Sign out: the cookie goes; a wallet's session ends, a token that was made otherwise stays good elsewhere"""
    token = cookies.token_of(request.headers)
    view = await _view(who, token)
    await here().db.run(lambda tx: sessions.end_of_wallet(tx, who.account_id, token))
    answer = Response(msgspec.json.encode(view), content_type=JSON)
    answer.headers["Set-Cookie"] = cookies.ended(request.headers.get("Host", ""))
    return answer


async def _view(who: Principal, token: str) -> PageSessionView:
    return PageSessionView(account=await money.account(here().db, who), csrf=cookies.csrf_of(token) if token else "")
