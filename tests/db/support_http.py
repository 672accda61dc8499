# SPDX-License-Identifier: Apache-2.0
"""A coordinator for tests of its edges: called through Quart's client, or as a real server on a free port."""

import asyncio
import contextlib
import hashlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn.server

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.app import Coordinator, assemble
from qubix_coordinator.clock import Clock
from qubix_coordinator.db.database import Database
from qubix_coordinator.http.balances import BalanceSource
from qubix_coordinator.http.server import bind, server_for
from qubix_coordinator.settings import Settings
from qubix_protocol.arrays import to_npy

TEST_URL = "http://localhost"


class _Hasty:
    """`asyncio` as Uvicorn's server sees it here: it looks each 10 ms whether it is to end, and pauses so long when it
    does. By itself each test with a server would idle for 0.2 s at its end."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    @staticmethod
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / 10)


uvicorn.server.asyncio = _Hasty()  # type: ignore[attr-defined]


@dataclass
class Person:
    """An account with a token."""

    account_id: uuid.UUID
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass
class Running:
    """A served coordinator."""

    coordinator: Coordinator
    url: str
    db: Database

    @property
    def ws(self) -> str:
        return self.url.replace("http://", "ws://")

    def client(self, person: Person | None = None) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers=person.headers if person else {}, timeout=30)


async def make_person(db: Database, *scopes: Scope, name: str = "somebody") -> Person:
    async with db.transaction() as tx:
        account_id = await accounts.create_account(tx, name)
        return Person(account_id, await accounts.create_token(tx, account_id, scopes or (Scope.USER,)))


async def assembled(
    db: Database,
    data_dir: Path,
    url: str = TEST_URL,
    clock: Clock | None = None,
    qubic: BalanceSource | None = None,
    **settings: Any,
) -> Coordinator:
    return await assemble(db, Settings(data_dir=data_dir, **{"outbox_poll_ms": 5, **settings}), url, clock, qubic)


@contextlib.asynccontextmanager
async def served(db: Database, data_dir: Path, **settings: Any) -> AsyncIterator[Running]:
    """A whole coordinator behind Uvicorn, with its background tasks, stopped at the end."""
    sock = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    coordinator = await assembled(db, data_dir, url, **settings)
    server = server_for(coordinator.app, coordinator.context.settings.trusted_proxies)
    with contextlib.closing(sock):
        async with asyncio.TaskGroup() as tasks:
            background = tasks.create_task(coordinator.run())
            serving = tasks.create_task(server.serve([sock]))
            try:
                await server.ready.wait()
                yield Running(coordinator, url, db)
            finally:
                coordinator.context.closing.set()
                server.should_exit = True
                await serving
                background.cancel()


def some_array(values: int = 1000, seed: int = 1) -> bytes:
    """A `.npy` file."""
    return to_npy(np.random.default_rng(seed).standard_normal(values).astype(np.float32))


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
