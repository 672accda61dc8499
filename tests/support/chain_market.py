# SPDX-License-Identifier: Apache-2.0
"""Database, devnet, coordinator and chain process as real processes: all that deposits and withdrawals need."""

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from tests.support.barriers import Barriers
from tests.support.devnet import start_devnet
from tests.support.market import Market, Process

T = TypeVar("T")
WAIT_S = 60.0


class ChainMarket:
    """`with ChainMarket(folder) as market:`; its barriers hold coordinator and chain process, its devnet runs fast."""

    def __init__(self, folder: Path, *, tick_ms: int = 50, **env: str) -> None:
        self.folder = folder
        self.barriers = Barriers(folder / "b")
        more = {"QUBIX_BARRIERS": str(folder / "b"), "QUBIX_DEPOSIT_MIN_QU": "100", "QUBIX_CHAIN_POLL_MS": "20"}
        self._market = Market(folder, **{**more, **env})
        self._tick_ms = tick_ms
        self.url = ""
        self.http = httpx.Client(timeout=30)

    def __enter__(self) -> Self:
        self.barriers.__enter__()
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        for path in (self.folder, self.folder / "data"):
            path.chmod(0o755)
        try:
            self._market.start_database()
            self.start_devnet()
            self._market.start_coordinator()
            self.start_chain()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        self._market.close()
        self.barriers.__exit__(kind, error, trace)

    @property
    def parts(self) -> dict[str, Process]:
        return self._market.parts

    @property
    def env(self) -> dict[str, str]:
        return self._market.env

    @property
    def database_url(self) -> str:
        return self._market.env["DATABASE_URL"]

    @property
    def api_url(self) -> str:
        return f"{self._market.url}/api/v1"

    @property
    def token(self) -> str:
        return self._market.token

    def start_devnet(self, **env: str) -> Process:
        """On the port it had before."""
        told = {"QUBIX_DEVNET_PAUSED": "0", "QUBIX_DEVNET_TICK_MS": str(self._tick_ms), **env}
        told["QUBIX_DEVNET_PORT"] = self._market.port_of("devnet")
        process = start_devnet(self.folder / "devnet", **told)
        self.parts["devnet"] = process
        self.url = str(process.wait_ready().info["url"])
        self._market.env["QUBIX_QUBIC_URL"] = self.url
        return process

    def start_chain(self, name: str = "chain", **env: str) -> Process:
        return self._market.start(name, "qubix_coordinator.treasury", **env)

    def kill_chain(self) -> None:
        self.parts["chain"].kill()

    # As a user and as the devnet's owner

    def api(self, path: str, **query: str) -> Any:
        headers = {"Authorization": f"Bearer {self._market.token}"}
        answer = self.http.get(f"{self._market.url}/api/v1{path}", headers=headers, params=query)
        answer.raise_for_status()
        return answer.json()

    def balance(self) -> int:
        return int(self.api("/account")["balance_qu"])

    def deposit_identity(self) -> str:
        """Once the chain process has filled the pool."""

        def asked() -> str | None:
            headers = {"Authorization": f"Bearer {self._market.token}"}
            answer = self.http.post(f"{self._market.url}/api/v1/account/deposit-identity", headers=headers)
            return answer.json()["identity"] if answer.status_code == 200 else None

        return wait_for("a deposit identity", asked)

    def devnet(self, path: str, **body: object) -> Any:
        answer = self.http.post(f"{self.url}/devnet/v1/{path}", json=body)
        answer.raise_for_status()
        return answer.json()

    def pay(self, identity: str, amount: int) -> str:
        """From the devnet's faucet; the transaction's id."""
        return str(self.devnet("faucet", identity=identity, amount=amount)["transaction_id"])

    def on_chain(self, identity: str) -> int:
        for _ in range(100):  # a devnet with faults may be too busy
            answer = self.http.get(f"{self.url}/live/v1/balances/{identity}")
            if answer.status_code == 200:
                return int(answer.json()["balance"]["balance"])
        raise AssertionError(answer.text)

    def heal(self) -> None:
        self.http.delete(f"{self.url}/devnet/v1/faults").raise_for_status()

    def logs(self) -> str:
        return self._market.logs()


def wait_for(what: str, ask: Callable[[], T | None], seconds: float = WAIT_S) -> T:
    """Until it is something true."""
    deadline = time.monotonic() + seconds
    while True:
        found = ask()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:g} s"
        time.sleep(0.02)
