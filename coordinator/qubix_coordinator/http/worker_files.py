# SPDX-License-Identifier: Apache-2.0
"""What workers are installed from, under `/worker`: files that are found by their hash and never change.

Nothing of an address becomes a path: both parts of it are looked up among the files that were made.
"""

import asyncio
import html
import sys
from typing import Final

import msgspec
from quart import Quart, Response, request
from quart.wrappers import Response as QuartResponse
from quart_schema import hide

from qubix_coordinator.errors import NotFound
from qubix_coordinator.http.context import Context, here
from qubix_coordinator.http.rates import asker_of
from qubix_coordinator.workers.shelf import Shelf, filled

PYTHON: Final = f"{sys.version_info[0]}.{sys.version_info[1]}"
_YEAR_S: Final = 31_536_000


async def shelf(context: Context) -> Shelf:
    """Made when it is first asked for: it takes a second or two."""
    async with context.worker_files.making:
        if context.worker_files.made is None:
            folder = context.settings.data_dir / "worker-wheels"
            context.worker_files.made = await asyncio.to_thread(filled, context.key, context.network, folder)
        return context.worker_files.made


def install(app: Quart) -> None:
    @hide
    async def manifest() -> QuartResponse:
        found = await shelf(_asked())
        return _answer(msgspec.json.encode(found.signed), "application/json", "no-cache")

    @hide
    async def links() -> QuartResponse:
        """For pip's --find-links."""
        found = await shelf(_asked())
        lines = "\n".join(
            f'<a href="files/{one.sha256}/{html.escape(one.name)}#sha256={one.sha256}">{html.escape(one.name)}</a><br>'
            for one in found.manifest.wheels
        )
        page = f"<!doctype html><title>QUBIX worker</title>\n{lines}\n"
        answer = _answer(page.encode(), "text/html; charset=utf-8", "no-cache")
        answer.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
        return answer

    @hide
    async def file(sha256: str, name: str) -> QuartResponse:
        data = (await shelf(_asked())).file(sha256, name)
        if data is None:
            raise NotFound("there is no such file here", field="path", remedy="Download the installer again")
        answer = _answer(data, "application/octet-stream", f"public, max-age={_YEAR_S}, immutable")
        answer.headers["Content-Disposition"] = "attachment"
        return answer

    app.add_url_rule("/worker/manifest", "worker_manifest", manifest, methods=["GET"])
    app.add_url_rule("/worker/links", "worker_links", links, methods=["GET"])
    app.add_url_rule("/worker/files/<sha256>/<name>", "worker_file", file, methods=["GET"])


def _asked() -> Context:
    """Raises LimitExceeded."""
    context = here()
    context.doors.worker_file(asker_of(request.remote_addr), context.clock.monotonic_s())
    return context


def _answer(data: bytes, kind: str, kept: str) -> QuartResponse:
    answer = Response(data, 200, content_type=kind)
    answer.headers["Cache-Control"] = kept
    return answer
