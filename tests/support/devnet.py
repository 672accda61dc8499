# SPDX-License-Identifier: Apache-2.0
"""A devnet inside a test, without clock and socket; wallets of it; and the devnet's process."""

import base64
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import httpx

from qubix_chain import crypto, identity
from qubix_chain.devnet.app import Devnet, assemble
from qubix_chain.devnet.settings import Settings
from qubix_chain.devnet.store import Store
from qubix_chain.transaction import Transaction
from tests.support.market import Process

Json = dict[str, Any]


class Wallet:
    """A key of its own for each name."""

    def __init__(self, name: str) -> None:
        letters = "".join(letter for letter in name.lower() if letter.isalpha())
        self.seed = letters.ljust(55, "z")
        self.key = crypto.public_key_of(self.seed)
        self.identity = identity.encode(self.key)

    def sign(self, to: bytes, amount: int, tick: int, input_type: int = 0, payload: bytes = b"") -> Transaction:
        built = Transaction.build(
            source=self.key, destination=to, amount=amount, tick=tick, input_type=input_type, payload=payload
        )
        return built.sign(self.seed)


class DevnetClient:
    """The calls that tests make, each answered with its JSON; an HTTP error is an `httpx.HTTPStatusError`."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def get(self, path: str) -> Any:
        return _checked(await self.http.get(path))

    async def post(self, path: str, **body: Any) -> Any:
        return _checked(await self.http.post(path, json=body))

    async def refused(self, path: str, **body: Any) -> tuple[int, Json]:
        """The status and body of a request that must fail."""
        answer = await self.http.post(path, json=body)
        assert answer.status_code >= 400, answer.text
        return answer.status_code, answer.json()

    async def tick(self) -> int:
        return int((await self.get("/live/v1/tick-info"))["tickInfo"]["tick"])

    async def status(self) -> Json:
        found: Json = await self.get("/devnet/v1/status")
        return found

    async def step(self, ticks: int = 1) -> Json:
        found: Json = await self.post("/devnet/v1/clock/step", ticks=ticks)
        return found

    async def balance(self, who: Wallet) -> Json:
        found: Json = (await self.get(f"/live/v1/balances/{who.identity}"))["balance"]
        return found

    async def broadcast(self, signed: Transaction) -> str:
        encoded = base64.b64encode(signed.to_bytes()).decode()
        return str((await self.post("/live/v1/broadcast-transaction", encodedTransaction=encoded))["transactionId"])

    async def fund(self, who: Wallet, amount: int) -> str:
        """Pays from the faucet and steps until the payment ran and the archive tells it."""
        paid = await self.post("/devnet/v1/faucet", identity=who.identity, amount=amount)
        await self.step(paid["target_tick"] - await self.tick() + 1 + 3)
        return str(paid["transaction_id"])


def _checked(answer: httpx.Response) -> Any:
    assert answer.headers["X-Qubic-Network"] == "devnet"
    answer.raise_for_status()
    return answer.json()


@contextlib.asynccontextmanager
async def devnet_client(folder: Path, **settings: Any) -> AsyncIterator[tuple[DevnetClient, Devnet]]:
    """Its clock stands: tests step it."""
    chosen = Settings(data_dir=folder, paused=True, **settings)
    with contextlib.closing(Store(chosen.ledger_file)) as store:
        # Each tick a second after the one before, so that histories do not depend on this machine's clock.
        times = iter(range(1_700_000_000_000, 2_000_000_000_000, 1000))
        made = assemble(store, chosen, now_ms=lambda: next(times))
        transport = httpx.ASGITransport(app=cast(Any, made.app))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            yield DevnetClient(http), made


@contextlib.contextmanager
def held(url: str) -> Iterator[None]:
    """The clock of a devnet's process stands meanwhile. A wallet signs for a tick that its user has a second or less to
    reach at a devnet's pace: on a busy machine it would be over before the network has the transaction."""
    _clock(url, "pause")
    try:
        yield
    finally:
        _clock(url, "resume")


def _clock(url: str, word: str) -> None:
    httpx.post(f"{url}/devnet/v1/clock/{word}", json={}, timeout=60).raise_for_status()


def start_devnet(folder: Path, **env: str) -> Process:
    """The process, on a free port, its clock standing unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "QUBIX_DATA_DIR": str(folder),
        "QUBIX_DEVNET_PORT": "0",
        "QUBIX_DEVNET_PAUSED": "1",
        "QUBIX_NETWORK": "devnet",
    }
    return Process("devnet", ["-m", "qubix_chain.devnet"], {**told, **env}, folder / "devnet.log")
