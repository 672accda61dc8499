# SPDX-License-Identifier: Apache-2.0
"""No log line holds what opens or moves anything: tokens, signatures, seeds, challenges, passwords of the database."""

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from qubix_coordinator.db.database import Database
from qubix_coordinator.http import wallets
from qubix_coordinator.logs import JsonFormatter, TextFormatter, configure
from qubix_protocol.wallet_text import parse
from tests.chain.vectors import OTHER_SEED, SEED
from tests.db.support_http import make_person
from tests.db.test_http_wallets import Door, bound, opened, twin

pytestmark = pytest.mark.asyncio
CLIENT = ("httpx", "httpcore")
"""Of whoever asks: its lines are not the coordinator's."""
QUIET = ("tortoise", "asyncio", *CLIENT)


@contextlib.contextmanager
def every_line() -> Iterator[io.StringIO]:
    """All that the coordinator logs at its most talkative level, as people and as machines get it."""
    text, root = io.StringIO(), logging.getLogger()
    level, handlers, quiet = root.level, root.handlers[:], {name: logging.getLogger(name).level for name in QUIET}
    configure("DEBUG", as_json=False)
    for name in CLIENT:
        logging.getLogger(name).setLevel(logging.WARNING)
    for formatter in (TextFormatter(), JsonFormatter()):
        handler = logging.StreamHandler(text)
        handler.setFormatter(formatter)
        root.addHandler(handler)
    try:
        yield text
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
        for name, before in quiet.items():
            logging.getLogger(name).setLevel(before)


async def test_nothing_that_opens_or_moves_anything_is_logged(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets: set[str] = {SEED, OTHER_SEED}
    with every_line() as lines:
        async with opened(db, tmp_path) as door:
            asked = await door.challenge()
            body = await door.signed(asked["text"])
            secrets |= {parse(asked["text"]).nonce, body["signature"]}
            forged = body | {"signature": twin(body["signature"])}
            secrets.add(forged["signature"])
            assert (await door.sign_in(forged)).status_code == 403
            view = (await door.sign_in(body)).json()
            assert (await door.sign_in(body)).status_code == 403
            secrets.add(view["token"])
            mine = {"Authorization": f"Bearer {view['token']}"}
            person = await make_person(db)
            secrets.add(person.token)
            assert (await bound(door, person, OTHER_SEED)).status_code == 200
            for path in ("/api/v1/wallets", "/api/v1/sessions", f"/api/v1/account?token={view['token']}"):
                await door.http.get(path, headers=mine)
            await door.http.get("/api/v1/account", headers={"Authorization": f"Bearer {view['token']}x"})
            await _defect(door, mine, monkeypatch)
            await door.http.delete("/api/v1/sessions?this_too=true", headers=mine)
    said = lines.getvalue()
    assert "wallet.signed_in" in said, "the lines are there"
    assert "http.unexpected" in said, "those of a defect as well"
    assert [secret for secret in secrets if secret in said] == []


async def _defect(door: Door, mine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace is logged whole: it must not carry the request."""

    async def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(wallets, "list_sessions", broken)
        answer = await door.http.get("/api/v1/sessions", headers=mine)
    assert answer.status_code == 500
