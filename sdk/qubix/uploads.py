# SPDX-License-Identifier: Apache-2.0
"""Inputs on their way to the artifact store: announced by digest, sent in parts, gone on with after a break."""

import random
from collections.abc import Callable

from qubix import retry
from qubix.errors import CannotReach, Conflict, NotGenuine, Unavailable
from qubix.inputs import Source
from qubix.session import API, Session
from qubix.transport import Call
from qubix_protocol.api import ArtifactBody, ArtifactView

OnUpload = Callable[[int, int], None]
"""Called with the bytes that are there already and the size."""


async def upload(session: Session, source: Source, digest: bytes, on_upload: OnUpload | None = None) -> None:
    """Returns when the store has all of it; sends nothing that it has already."""
    body = ArtifactBody(digest=digest.hex(), size_bytes=source.size_bytes)
    view = await session.post("/artifacts", body, ArtifactView)
    failures = 0
    while not view.complete:
        before = view.offset
        try:
            view = await _send_part(session, source, view)
        except (CannotReach, Unavailable, Conflict):
            if failures + 1 >= session.settings.tries_max:
                raise
            await session.port.sleep(retry.delay_s(failures + 1, random.random()))  # noqa: S311  spreads callers
            view = await session.post("/artifacts", body, ArtifactView)
        failures = 0 if view.offset > before else failures + 1
        if failures >= session.settings.tries_max and not view.complete:
            raise NotGenuine(f"the store takes parts of {body.digest} but keeps none", remedy="Tell its operator.")
        if on_upload is not None:
            on_upload(view.offset, view.size_bytes)


async def _send_part(session: Session, source: Source, view: ArtifactView) -> ArtifactView:
    stop = min(view.offset + session.settings.upload_part_bytes, source.size_bytes)
    part = await session.port.aside(lambda: source.read(view.offset, stop))
    headers = {
        "Content-Range": f"bytes {view.offset}-{stop - 1}/{source.size_bytes}",
        "Content-Type": "application/octet-stream",
    }
    path = f"{API}/artifacts/{view.digest}"
    call = Call(method="PUT", path=path, headers=headers, content=part, repeatable=False)
    return session.decode(await session.send(call), ArtifactView, path)
