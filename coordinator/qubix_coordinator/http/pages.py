# SPDX-License-Identifier: Apache-2.0
"""The web marketplace: files that the build has made, under a policy that runs nothing but them (trust D3)."""

import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import Final

from quart import Quart, Request, Response, has_request_context, request, send_file
from quart.wrappers import Response as QuartResponse
from quart_schema import hide
from werkzeug.exceptions import HTTPException

import qubix_coordinator
from qubix_coordinator.errors import NotFound
from qubix_coordinator.http import problems

BUILT: Final = Path(qubix_coordinator.__file__).parent / "_web"
PAGES: Final = (
    "offers",
    "run",
    "jobs",
    "rentals",
    "share",
    "provider",
    "wallet",
    "disputes",
    "operator",
    "account",
    "signin",
)
"""First parts of addresses that the page itself reads."""
_HTML: Final = "text/html"
_YEAR_S: Final = 31_536_000
_NOT_BUILT: Final = (
    "The web pages are not built yet. Run `make setup` in the project's folder, then load this address again.\n"
    "The API is at /api/v1, its description at /openapi.json.\n"
)


def policy(relay: str = "") -> str:
    """`relay`: the one other place that the pages speak with, for WalletConnect; what goes there is sealed."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            # Charts and virtual rows set sizes on elements; no style sheet of others is taken.
            "style-src 'self'",
            "style-src-attr 'unsafe-inline'",
            "img-src 'self' blob:",
            "font-src 'self'",
            f"connect-src 'self' {relay}".rstrip(),
            "worker-src 'self'",
            "manifest-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


def _no_relay() -> str:
    return ""


def install(app: Quart, folder: Path = BUILT, relay: Callable[[], str] = _no_relay) -> None:
    """`relay`: what the policy lets the pages speak with; "": nobody but this server."""

    @hide
    async def page(rest: str = "") -> QuartResponse:
        return await _page(folder, relay())

    app.add_url_rule("/", "page", page, methods=["GET"])
    for name in PAGES:
        app.add_url_rule(f"/{name}", f"page_{name}", page, methods=["GET"])
        app.add_url_rule(f"/{name}/<path:rest>", f"page_{name}_rest", page, methods=["GET"])

    @hide
    async def asset(name: str) -> QuartResponse:
        answer = await _file(folder, f"assets/{name}")
        # Their names carry a digest of what is in them.
        answer.headers["Cache-Control"] = f"public, max-age={_YEAR_S}, immutable"
        return answer

    @hide
    async def icon() -> QuartResponse:
        return await _file(folder, "favicon.svg")

    app.add_url_rule("/assets/<name>", "asset", asset, methods=["GET"])
    app.add_url_rule("/favicon.svg", "icon", icon, methods=["GET"])

    async def nowhere(error: HTTPException) -> QuartResponse:
        """A person who follows an old address gets the page that says so; a program or a socket gets a problem."""
        if not has_request_context() or not _reads(request) or not (folder / "index.html").is_file():
            return await problems.of_routing(error)
        answer = await _page(folder, relay())
        answer.status_code = 404
        return answer

    app.register_error_handler(404, nowhere)


def _reads(asked: Request) -> bool:
    """Whether it is a person who looks."""
    kinds = asked.accept_mimetypes.best_match((problems.CONTENT_TYPE, "application/json", _HTML))
    return kinds == _HTML and asked.method in ("GET", "HEAD") and not asked.path.startswith("/api/")


async def _page(folder: Path, relay: str) -> QuartResponse:
    if not (folder / "index.html").is_file():
        return Response(_NOT_BUILT, 503, content_type="text/plain; charset=utf-8")
    answer = await _file(folder, "index.html")
    answer.headers["Content-Security-Policy"] = policy(relay)
    answer.headers["Cache-Control"] = "no-cache"
    answer.headers["Referrer-Policy"] = "no-referrer"
    answer.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    return answer


async def _file(folder: Path, name: str) -> QuartResponse:
    """Compressed when the build made it so and the browser takes it. Raises NotFound."""
    path = folder / name
    if not path.is_file() or path.resolve().parent != (folder / name).parent.resolve():
        raise NotFound("there is no such file", field="path", remedy="Load the page again: it may have been built anew")
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    packed = path.with_name(path.name + ".gz")
    if packed.is_file() and request.accept_encodings.quality("gzip") > 0:
        answer = await send_file(packed, mimetype=kind, conditional=True)
        answer.headers["Content-Encoding"] = "gzip"
    else:
        answer = await send_file(path, mimetype=kind, conditional=True)
    answer.headers["Vary"] = "Accept-Encoding"
    return answer
