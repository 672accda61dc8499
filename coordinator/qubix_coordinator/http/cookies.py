# SPDX-License-Identifier: Apache-2.0
"""A page's session: the token in a cookie that no script can read, and the proof that a write comes from our own page.

`SameSite` knows no ports: a page of another server on this machine is of the same site. So a write by cookie must come
with this server's exact origin and with a value that only our own page could have read (trust A2).
"""

import hashlib
import hmac
from typing import Final
from urllib.parse import urlsplit

from werkzeug.datastructures import Headers
from werkzeug.http import dump_cookie, parse_cookie

from qubix_coordinator.errors import Forbidden
from qubix_coordinator.http.guard import LOOPBACK

NAME: Final = "qubix_session"
CSRF_HEADER: Final = "X-CSRF-Token"
SCOPES: Final = ("user", "operator", "arbiter")
"""Tokens of people: one of these signs a page in, and each route asks for its own."""
LIFE_S: Final = 30 * 86_400
"""The token in it may end earlier."""
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_REMEDY: Final = "Load the page again"


def token_of(headers: Headers) -> str:
    """ "" when there is no such cookie."""
    return parse_cookie(headers.get("Cookie", "")).get(NAME, "")


def csrf_of(token: str) -> str:
    """Known to whoever may read `GET /session`, which pages of other origins may not."""
    return hashlib.sha256(b"qubix csrf\0" + token.encode()).hexdigest()


def check_write(method: str, headers: Headers, token: str) -> None:
    """Raises Forbidden for a write that may not come from our own page."""
    if method in SAFE:
        return
    check_origin(headers)
    if not hmac.compare_digest(headers.get(CSRF_HEADER, "").encode(), csrf_of(token).encode()):
        raise Forbidden("the request does not prove that it comes from this page", field=CSRF_HEADER, remedy=_REMEDY)


def check_origin(headers: Headers) -> None:
    """The origin must be there and be this server, port and all. Raises Forbidden."""
    origin = headers.get("Origin")
    if not origin or urlsplit(origin).netloc.lower() != headers.get("Host", "").lower():
        raise Forbidden("a session's cookie serves this server's own pages alone", field="Origin", remedy=_REMEDY)


def made(token: str, host: str) -> str:
    """The Set-Cookie header; without TLS only on this machine."""
    return _dump(token, host, LIFE_S)


def ended(host: str) -> str:
    return _dump("", host, 0)


def _dump(token: str, host: str, life_s: int) -> str:
    secure = (urlsplit(f"//{host}").hostname or "") not in LOOPBACK
    return dump_cookie(NAME, token, max_age=life_s, path="/", httponly=True, samesite="Strict", secure=secure)
