# SPDX-License-Identifier: Apache-2.0
"""The demonstration from the faucet to the audit."""

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from qubix import processes, settings
from qubix.cli import shown
from qubix.cli.progress import watch
from qubix.cli.tables import print_offers
from qubix.client import Client
from qubix.demo.money import Backing, Money, Movement
from qubix.demo.outcome import Outcome, outcome_of
from qubix.demo.works import DemoWork, works
from qubix.errors import NotFinished, NotGenuine
from qubix_protocol.api import EstimateView, ListingView

JOB_S: Final = 180.0
OFFERS_S: Final = 60.0
AUDIT_S: Final = 60.0


class Demo:
    """`console` is where people read along."""

    def __init__(self, info: Mapping[str, Any], data_dir: Path, outside: Mapping[str, str], console: Console) -> None:
        """`info` is what `qubix up` says of its market."""
        url, self._qubic_url = str(info["url"]), str(info["qubic_url"])
        self._settings = replace(settings.from_environment(), coordinator_url=url, data_dir=data_dir, token="")
        self._data_dir, self._outside, self._console = data_dir, outside, console

    def run(self) -> dict[str, Any]:
        """Everything that is worth keeping, for `--json`. Raises a `QubixError` when anything does not hold."""
        with Client(settings=self._settings) as client:
            money = Money(client, self._qubic_url)
            chain = {"network": "devnet", "url": self._qubic_url, "wallet": money.wallet.identity}
            chain |= self._deposit(client, money)
            offers = self._offers(client)
            outcomes = [self._job(client, work) for work in works()]
            chain |= self._withdraw(money)
            balance = client.balance()
            self._say(f"Balance: {shown.qu(balance.available_qu)} QU available, {shown.qu(balance.held_qu)} QU held.")
            reserves = self._reserves(money)
        return {
            "url": self._settings.url,
            "chain": chain,
            "offers": offers,
            "jobs": outcomes,
            "reserves": reserves,
            "audit": self._audit(),
        }

    def _deposit(self, client: Client, money: Money) -> dict[str, Any]:
        funding = money.fund_wallet()
        self._say(f"\nA new wallet on the devnet (play money): {money.wallet.identity}")
        self._moved("faucet", funding, "to the wallet")
        deposit, state = money.deposit()
        self._moved("deposit", deposit, "signed by the wallet, to the account's own identity")
        self._say(f"Deposited: {shown.qu(client.balance().available_qu)} QU available in the market.\n")
        return {"funding": funding, "deposit": deposit, "deposit_state": state}

    def _withdraw(self, money: Money) -> dict[str, Any]:
        self._say("\nWithdrawal to the wallet, once the deposit is swept to where the market pays from")
        movement, view = money.withdraw()
        self._moved("withdrawal", movement, "signed by the chain process, to the wallet")
        self._say("")
        return {"withdrawal": movement, "withdrawal_id": view.withdrawal_id}

    def _reserves(self, money: Money) -> Backing:
        found = money.reserves()
        self._say("\nProof of reserves, signed by the coordinator and checked here")
        self._say(f"  {'owed':<11} {found.owed_qu:,} QU to all accounts and the market, root {found.root[:16]}…")
        count = len(found.identities)
        self._say(f"  {'there':<11} {found.on_chain_qu:,} QU by the network's own word, on {count} of its identities")
        self._say(f"  {'own part':<11} {found.own_qu:,} QU of this account, found in that total\n")
        return found

    def _moved(self, what: str, one: Movement, how: str) -> None:
        self._say(f"  {what:<11} {shown.qu(one.amount_qu)} QU {how}, tick {one.tick}")
        self._say(f"  {'':<11} transaction {one.tx_id}")

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def _offers(self, client: Client) -> tuple[ListingView, ...]:
        end = time.monotonic() + OFFERS_S
        while not (found := client.offers()):
            if time.monotonic() > end:
                raise NotFinished(f"nothing was offered within {OFFERS_S:g} s", remedy="Look at the node's log.")
            time.sleep(0.2)
        self._say("The market:")
        print_offers(found, to=self._console)
        return found

    def _job(self, client: Client, work: DemoWork) -> Outcome:
        self._say(f"\n{work.kernel}: {work.title}")
        forecast = client.estimate(work.kernel, **work.given)
        cap_qu = _cap(forecast)
        began = time.monotonic()
        job = client.submit(work.kernel, cap_qu=cap_qu, **work.given)
        watch(job, self._console, JOB_S)
        result = job.result(JOB_S)
        seconds = time.monotonic() - began
        outcome = outcome_of(job.view, job.receipts(), work.find(result), seconds)
        self._console.print(_summary(outcome, forecast))
        return outcome

    def _audit(self) -> dict[str, Any]:
        """While QU are on their way between two readings of the chain, nobody can tell: then a moment later."""
        end = time.monotonic() + AUDIT_S
        while True:
            found = self._audited()
            if found["violations"] or not (found["clean"] or time.monotonic() < end):
                raise NotGenuine(f"the audit is not clean: {json.dumps(found)}")
            if found["clean"]:
                break
            time.sleep(1)
        counted = ", ".join(f"{count:,} {name}" for name, count in found["checked"].items())
        self._say(f"Ledger audit: clean ({counted}).\n")
        return found

    def _audited(self) -> dict[str, Any]:
        env = {**self._outside, "QUBIX_DATA_DIR": str(self._data_dir)}
        command = processes.command("audit", "--json")
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=AUDIT_S, check=False)
        except subprocess.TimeoutExpired:
            raise NotGenuine(f"the audit took longer than {AUDIT_S:.0f} s") from None
        if not done.stdout:
            raise NotGenuine(f"the audit could not be made: {done.stderr.strip()}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def _cap(forecast: EstimateView) -> int:
    """Room above the dearest forecast; what is not needed returns."""
    return max([100, *(4 * one.cost_high_qu for one in forecast.candidates)])


def _summary(one: Outcome, forecast: EstimateView) -> Table:
    table = Table.grid(padding=(0, 2))
    first = forecast.candidates[0] if forecast.candidates else None
    expected = (
        "" if first is None else f"{shown.seconds(first.run_ms)}, {first.cost_low_qu:,} to {first.cost_high_qu:,} QU"
    )
    for name, value in (
        ("provider", f"{one.model}  {one.provider}"),
        ("forecast", expected),
        (
            "took",
            f"{one.seconds:.2f} s from submission to the checked result, {shown.seconds(one.run_ms)} of it the run",
        ),
        (
            "verdict",
            f"{one.verdict}; the check took {one.check_ms:,} ms, {one.check_share_pct:.1f} % of the run's time",
        ),
        ("held", f"{shown.qu(one.held_qu)} QU"),
        ("settled", f"{shown.qu(one.settled_qu)} QU to the provider, {shown.qu(one.fee_qu)} QU fee"),
        ("settlement", f"of attempt {', '.join(one.settlements)} of job {one.job_id}"),
        ("returned", f"{shown.qu(one.returned_qu)} QU"),
        (
            "receipt",
            f"{one.receipts_verified} verified offline, {one.signed_by_both} signed by provider and coordinator both",
        ),
        *((name, f"{value:,.6g}") for name, value in one.found.items()),
    ):
        table.add_row(f"  {name}", value)
    return table
