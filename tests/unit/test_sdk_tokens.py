# SPDX-License-Identifier: Apache-2.0
"""The token of a sign-in is forgotten when its session has ended, and not before."""

from pathlib import Path
from typing import Any

import pytest

from qubix import tokens
from qubix.client import Client
from qubix.errors import CannotReach
from qubix.settings import Settings
from qubix_protocol.wallets import SessionsView
from tests.support.fake_api import DROP, TOKEN, FakeApi, Refusal, Seen


class Market(FakeApi):
    def __init__(self) -> None:
        super().__init__()
        self.open = {"one"}

    def _delete_sessions(self, seen: Seen, session_id: str) -> tuple[int, Any]:
        if session_id not in self.open:
            raise Refusal(401, "unauthorised", "no such token", field="Authorization")
        self.open.remove(session_id)
        return 200, SessionsView(sessions=())


@pytest.fixture
def kept() -> tokens.Kept:
    return tokens.Kept(token=TOKEN, session_id="one", expires_ms=2**50)


def test_a_sign_out_that_does_not_come_through_is_repeated(tmp_path: Path, kept: tokens.Kept) -> None:
    with Market() as market:
        settings = Settings(coordinator_url=market.url, data_dir=tmp_path, tries_max=1)
        tokens.keep(tmp_path, market.url, kept)
        market.trouble("DELETE", "/sessions", DROP)
        with Client(settings=settings) as client:
            with pytest.raises(CannotReach):
                client.sign_out()
            assert market.open == {"one"}
            assert client.sign_out().ended == 1
            assert market.open == set()
            assert tokens.read(tmp_path) == {}
            assert client.sign_out().ended == 0


def test_a_session_that_had_ended_is_forgotten(tmp_path: Path, kept: tokens.Kept) -> None:
    with Market() as market:
        market.open.clear()
        tokens.keep(tmp_path, market.url, kept)
        with Client(settings=Settings(coordinator_url=market.url, data_dir=tmp_path)) as client:
            assert client.sign_out().ended == 1
        assert tokens.read(tmp_path) == {}
