# SPDX-License-Identifier: Apache-2.0
"""`qubix wallet`."""

from typing import Any

import click

from qubix.cli import shown
from qubix.cli.output import console, json_option, market, print_json, print_pairs, print_table
from qubix.cli.reserves import proof
from qubix.cli.wallet_chain import balance, deposit, deposits, faucet, login, logout, prove
from qubix.cli.wallet_earned import earnings, work
from qubix.cli.wallet_keys import KEPT_IN, create, import_, seed
from qubix.cli.wallet_order_keys import keys
from qubix.cli.wallet_out import address, cancel, payout, withdraw, withdrawals
from qubix.client import Client
from qubix_protocol.api import AccountView


@click.group()
def wallet() -> None:
    """The Qubic key on this machine, and the account's money."""


for command in (create, import_, seed, login, logout, balance, faucet, deposit, deposits, prove, proof):
    wallet.add_command(command)
for command in (earnings, work, keys):
    wallet.add_command(command)
for command in (withdraw, withdrawals, cancel, address, payout):
    wallet.add_command(command)


@wallet.command()
@click.option("--offline", is_flag=True, help="Only what is on this machine: ask no market.")
@json_option
def show(offline: bool, as_json: bool) -> None:
    """Keys and where they are kept, and the account's balance."""
    with market() as client:
        key = client.wallet
        kept = key.kept
        account = None if offline else client.account()
        known = "" if account is None else _known(client, account)
    if as_json:
        theirs = {} if account is None else _account_facts(account)
        ours = {
            "order_key": key.public_key,
            "order_key_file": str(key.path),
            "identity": None if kept is None else kept.header.identity,
            "kept_in": None if kept is None else kept.header.kept_in,
            "keystore_file": None if kept is None else str(kept.path),
        }
        print_json(theirs | ours)
        return
    print_pairs(
        [
            ("account", "" if account is None else f"{account.name} ({account.account_id})"),
            ("available", "" if account is None else f"{shown.qu(account.balance_qu)} QU"),
            ("held", "" if account is None else f"{shown.qu(account.held_qu)} QU"),
            ("order key", f"{key.public_key}  {known}".rstrip()),
            ("kept in", str(key.path)),
            ("Qubic identity", "none yet: qubix wallet create" if kept is None else kept.header.identity),
            ("kept in", "" if kept is None else f"{KEPT_IN[kept.header.kept_in]} ({kept.path})"),
        ]
    )


def _account_facts(account: AccountView) -> dict[str, Any]:
    return {
        "account_id": account.account_id,
        "name": account.name,
        "balance_qu": account.balance_qu,
        "held_qu": account.held_qu,
        "order_key_known": account.order_key,
    }


def _known(client: Client, account: AccountView) -> str:
    """What the market knows of this machine's order key."""
    ours = client.wallet.public_key
    if account.order_key == ours:
        return "known to the market"
    if not account.orders_signed:
        return "not used yet"
    found = next((one for one in client.order_keys.list().keys if one.public_key == ours), None)
    if found is None:
        return "the market knows OTHER keys: qubix wallet keys"
    return "known to the market" if found.revoked_ms is None else "REVOKED: it signs no orders any more"


@wallet.command()
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="Most lines to show.")
@click.option("--after", metavar="CURSOR", help="Go on after this cursor of an earlier page.")
@json_option
def statement(limit: int, after: str | None, as_json: bool) -> None:
    """Every movement on the balance, newest first."""
    with market() as client:
        found = client.statement(after=after, limit=limit)
    if as_json:
        print_json(found)
        return
    lines = [
        [shown.moment(one.at_ms), one.kind.removeprefix("development_"), f"{one.amount_qu:+,}", shown.cause(one.cause)]
        for one in found.lines
    ]
    print_table(("when", "what", "QU", "for"), lines, right=frozenset({"QU"}))
    if found.next:
        console().print(f"More: qubix wallet statement --after {found.next}")
