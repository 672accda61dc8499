# SPDX-License-Identifier: Apache-2.0
"""`qubix wallet`."""

import click

from qubix.cli import shown
from qubix.cli.output import console, json_option, market, print_json, print_pairs, print_table
from qubix.cli.reserves import proof
from qubix.cli.wallet_chain import balance, deposit, deposits, login, logout, prove
from qubix.cli.wallet_keys import KEPT_IN, create, import_, seed
from qubix.cli.wallet_out import address, cancel, payout, withdraw, withdrawals
from qubix_protocol.units import QU_MAX


@click.group()
def wallet() -> None:
    """The Qubic key on this machine, and the account's money."""


for command in (create, import_, seed, login, logout, balance, deposit, deposits, prove, proof):
    wallet.add_command(command)
for command in (withdraw, withdrawals, cancel, address, payout):
    wallet.add_command(command)


@wallet.command()
@json_option
def show(as_json: bool) -> None:
    """Keys and where they are kept, and the account's balance."""
    with market() as client:
        key = client.wallet
        kept = key.kept
        account = client.account()
    if as_json:
        print_json(
            {
                "account_id": account.account_id,
                "name": account.name,
                "balance_qu": account.balance_qu,
                "held_qu": account.held_qu,
                "order_key": key.public_key,
                "order_key_known": account.order_key,
                "order_key_file": str(key.path),
                "identity": None if kept is None else kept.header.identity,
                "kept_in": None if kept is None else kept.header.kept_in,
                "keystore_file": None if kept is None else str(kept.path),
            }
        )
        return
    known = {None: "not used yet", key.public_key: "known to the market"}
    print_pairs(
        [
            ("account", f"{account.name} ({account.account_id})"),
            ("available", f"{shown.qu(account.balance_qu)} QU"),
            ("held", f"{shown.qu(account.held_qu)} QU"),
            ("order key", f"{key.public_key}  {known.get(account.order_key, 'the market knows ANOTHER key')}"),
            ("kept in", str(key.path)),
            ("Qubic identity", "none yet: qubix wallet create" if kept is None else kept.header.identity),
            ("kept in", "" if kept is None else f"{KEPT_IN[kept.header.kept_in]} ({kept.path})"),
        ]
    )


@wallet.command()
@click.argument("amount_qu", type=click.IntRange(1, QU_MAX), metavar="QU")
@json_option
def credit(amount_qu: int, as_json: bool) -> None:
    """Add development credit (impossible on the main network)."""
    with market() as client:
        account = client.credit(amount_qu)
    if as_json:
        print_json(account)
    else:
        console().print(f"{shown.qu(amount_qu)} QU added; {shown.qu(account.balance_qu)} QU available")


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
