# SPDX-License-Identifier: Apache-2.0
"""A real market for a browser: as many parts of it as a file of tests needs, and a line to it that can be cut."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self

import qubix
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.db.database import Database
from qubix_coordinator.settings import Settings
from tests.support import funds
from tests.support.devnet import start_devnet
from tests.support.market import Market

MONEY: Final = "money"
"""A devnet and the chain process: deposits and withdrawals."""
GATEWAY: Final = "gateway"
VERIFIER: Final = "verifier"
ALL: Final = (MONEY, GATEWAY, VERIFIER)


class WebMarket(Market):
    """Database and coordinator, which serves the pages, and the `parts` that are named."""

    def __init__(self, folder: Path, parts: Collection[str] = (GATEWAY, VERIFIER), **env: str) -> None:
        quick = {"QUBIX_DEPOSIT_MIN_QU": "100", "QUBIX_CHAIN_POLL_MS": "50"} if MONEY in parts else {}
        super().__init__(folder, **{**quick, **env})
        self.wanted = parts
        self.qubic_url = ""

    def __enter__(self) -> Self:
        for path in (self.folder, self.folder / "data"):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o755)
        try:
            self.start_database()
            if MONEY in self.wanted:
                self._start_devnet()
            self.start_coordinator()
            if MONEY in self.wanted:
                self.start("chain", "qubix_coordinator.treasury")
            if GATEWAY in self.wanted:
                self.start_gateway()
            if VERIFIER in self.wanted:
                self.start_verifier()
        except BaseException:
            self.close()
            raise
        return self

    def _start_devnet(self) -> None:
        devnet = start_devnet(self.folder / "devnet", QUBIX_DEVNET_PAUSED="0", QUBIX_DEVNET_TICK_MS="100")
        self.parts["devnet"] = devnet
        self.qubic_url = self.env["QUBIX_QUBIC_URL"] = str(devnet.wait_ready().info["url"])

    def start_quick_node(self, name: str = "node", **env: str) -> str:
        """A real node on the CPU that measures itself for a moment only; its peer id."""
        told = {"QUBIX_NODE_THREADS": "1", **env}
        return str(self.start_node(name, "tests.support.quick_node", **told).info["peer_id"])

    def person(self, funds_qu: int = 0) -> str:
        """A new account with that much money; its token. In a thread, since Playwright's loop runs in this one."""
        with ThreadPoolExecutor(1) as pool:
            by_chain = bool(self.qubic_url)
            token = pool.submit(asyncio.run, _person(self.env["DATABASE_URL"], 0 if by_chain else funds_qu)).result()
            if by_chain and funds_qu:
                pool.submit(self._pay_in, token, funds_qu).result()
            return token

    def _pay_in(self, token: str, amount_qu: int) -> None:
        with qubix.Client(self.url, token=token, data_dir=self.folder / "paying") as client:
            funds.fund_by_faucet(client, self.qubic_url, amount_qu)


async def _person(dsn: str, funds_qu: int) -> str:
    db = await Database.connect(Settings(), dsn)
    try:
        async with db.transaction() as tx:
            account_id = await accounts.create_account(tx, "a person")
            if funds_qu:
                await funds.deposit(tx, account_id, funds_qu)
            return await accounts.create_token(tx, account_id, [Scope.USER])
    finally:
        await db.close()


class Line:
    """A line to the market's port, by which a browser reaches it: `cut` ends every connection, and none is made until
    `mend`."""

    def __init__(self, url: str) -> None:
        self._to = int(url.rstrip("/").rsplit(":", 1)[1])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._whole = True
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        # A thread that waits in accept is woken by a shutdown, and by a close is not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def cut(self) -> None:
        with self._lock:
            self._whole = False
            for end in self._ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        with self._lock:
            self._whole = True

    def _start(self, work: Callable[..., None], *args: socket.socket) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                browser, _ = self._listener.accept()
                self._connect(browser)

    def _connect(self, browser: socket.socket) -> None:
        with self._lock:
            if not self._whole:
                browser.close()
                return
            try:
                market = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                browser.close()
                return
            self._ends |= {browser, market}
        self._start(self._carry, browser, market)
        self._start(self._carry, market, browser)

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        self._done(source)

    def _done(self, source: socket.socket) -> None:
        """The thread that reads from a socket is the last to know it, and closes it."""
        with self._lock:
            self._ends.discard(source)
            source.close()
