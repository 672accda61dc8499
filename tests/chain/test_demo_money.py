# SPDX-License-Identifier: Apache-2.0
"""The demonstration's deposit on a devnet whose ticks go on while its wallet signs, as they do on a busy machine."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from qubix.demo import money
from qubix.errors import NotFinished
from qubix.settings import Settings
from qubix_chain.transaction import Transaction
from tests.support.devnet import Wallet, start_devnet

MARKET = Wallet("market")
REFUSED, DROPPED = 20, 5
"""So many ticks late a payment's tick is over, or its list is fixed, of which nobody is told."""


class Slow(money.DemoWallet):
    """Signs; meanwhile so many ticks go by, and none once there are no more."""

    def __init__(self, url: str, *late: int) -> None:
        super().__init__()
        self._url, self._late, self.signed = url, list(late), list[Transaction]()

    def pay(self, destination: bytes, amount_qu: int, tick: int) -> Transaction:
        self.signed.append(super().pay(destination, amount_qu, tick))
        if self._late:
            asked = {"ticks": self._late.pop(0)}
            httpx.post(f"{self._url}/devnet/v1/clock/step", json=asked, timeout=60).raise_for_status()
        return self.signed[-1]


@pytest.fixture
def devnet(tmp_path: Path) -> Iterator[str]:
    process = start_devnet(tmp_path / "devnet", QUBIX_DEVNET_PAUSED="0", QUBIX_DEVNET_TICK_MS="100").wait_ready()
    yield str(process.info["url"])
    process.stop()


def paying(devnet: str, folder: Path, *late: int) -> tuple[money.Money, Slow]:
    """With a market that credits whatever reached its identity."""

    def deposits() -> Any:
        asked = {"identity": MARKET.identity}
        answer = httpx.post(f"{devnet}/query/v1/getTransactionsForIdentity", json=asked, timeout=60).json()
        return SimpleNamespace(
            deposits=[SimpleNamespace(tx_id=one["hash"], state="credited") for one in answer["transactions"]]
        )

    market = SimpleNamespace(
        settings=Settings(data_dir=folder),
        deposit_identity=lambda: SimpleNamespace(identity=MARKET.identity),
        deposits=deposits,
    )
    made = money.Money(cast(Any, market), devnet)
    made.wallet = wallet = Slow(devnet, *late)  # type: ignore[misc]
    made.fund_wallet()
    return made, wallet


def test_a_deposit_that_missed_its_tick_is_signed_anew(devnet: str, tmp_path: Path) -> None:
    made, wallet = paying(devnet, tmp_path, REFUSED, DROPPED)
    movement, state = made.deposit()
    assert (movement.amount_qu, movement.destination, state) == (money.DEPOSIT_QU, MARKET.identity, "credited")
    assert movement.tx_id == wallet.signed[-1].id
    assert len(wallet.signed) >= 3
    balance = httpx.get(f"{devnet}/live/v1/balances/{MARKET.identity}", timeout=60).json()["balance"]
    assert balance["incomingAmount"] == str(money.DEPOSIT_QU), "once, however often it was signed"


def test_one_that_is_late_each_time_is_given_up(devnet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(money, "_TRIES_MAX", 2)
    made, wallet = paying(devnet, tmp_path, *[REFUSED] * 20)
    with pytest.raises(NotFinished, match=r"2 deposits did not run in their ticks .*tick"):
        made.deposit()
    assert len(wallet.signed) == 2
