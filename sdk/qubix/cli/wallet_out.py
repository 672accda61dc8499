# SPDX-License-Identifier: Apache-2.0
"""`qubix wallet withdraw`, `withdrawals`, `cancel`, `address` and `payout`: QU that leave the market."""

import time
import uuid
from typing import Final

import click

from qubix.cli import shown
from qubix.cli.exits import FAILED
from qubix.cli.output import console, json_option, market, print_json, print_pairs, print_table
from qubix.client import Client
from qubix.errors import BadUsage, NotFinished
from qubix.wallet import Wallet
from qubix_protocol.units import QU_MAX
from qubix_protocol.withdrawals import (
    FINAL_WITHDRAWAL_STATES,
    AddressView,
    PayoutView,
    WithdrawalState,
    WithdrawalView,
)

LOOK_EACH_S: Final = 1.0
to_option = click.option(
    "--to", "destination", metavar="IDENTITY", help="A listed address (default: this wallet's own)."
)


@click.command()
@click.argument("amount_qu", type=click.IntRange(1, QU_MAX), metavar="QU", required=False)
@to_option
@click.option("--watch", is_flag=True, help="Follow it to its end.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    help="Seconds to follow it.",
)
@click.option(
    "--key", metavar="TEXT", help="Idempotency key: the same one again is the same withdrawal, no second one."
)
@json_option
def withdraw(
    amount_qu: int | None, destination: str | None, watch: bool, timeout_s: float, key: str | None, as_json: bool
) -> None:
    """Send QU from the market to an address of yours. Without an amount: how much can be withdrawn now, and why."""
    with market() as client:
        if amount_qu is None:
            _limits(client, as_json)
            return
        made = client.withdraw(destination or own(client.wallet), amount_qu, idempotency_key=key or str(uuid.uuid4()))
        if watch:
            made = _follow(client, made, time.monotonic() + timeout_s)
    _show(made, as_json)
    if watch and made.state is not WithdrawalState.CONFIRMED:
        raise SystemExit(FAILED)


@click.command()
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="Most lines to show.")
@click.option("--after", metavar="CURSOR", help="Go on after this cursor of an earlier page.")
@json_option
def withdrawals(limit: int, after: str | None, as_json: bool) -> None:
    """Your withdrawals, newest first, each with its transaction and why it waits."""
    with market() as client:
        found = client.withdrawals(after=after, limit=limit)
    if as_json:
        print_json(found)
        return
    if not found.withdrawals:
        console().print("No withdrawals yet. `qubix wallet withdraw` says how much can be withdrawn.")
    lines = [
        [
            shown.moment(one.created_ms),
            shown.qu(one.amount_qu),
            one.state.value,
            one.text,
            one.tx_id or "",
            one.withdrawal_id,
        ]
        for one in found.withdrawals
    ]
    if lines:
        print_table(("when", "QU", "state", "which means", "transaction", "withdrawal"), lines, right=frozenset({"QU"}))
    if found.next:
        console().print(f"More: qubix wallet withdrawals --after {found.next}")


@click.command()
@click.argument("withdrawal_id", type=click.UUID, metavar="WITHDRAWAL")
@json_option
def cancel(withdrawal_id: object, as_json: bool) -> None:
    """Take a withdrawal back while no transaction is signed."""
    with market() as client:
        _show(client.cancel_withdrawal(str(withdrawal_id)), as_json)


@click.group()
def address() -> None:
    """Where your withdrawals may go."""


@address.command("list")
@json_option
def list_addresses(as_json: bool) -> None:
    """The listed addresses, and from when on each can be used."""
    with market() as client:
        _addresses(client.addresses(), as_json)


@address.command("add")
@click.argument("identity", metavar="[IDENTITY]", required=False)
@click.option("--label", default="", metavar="TEXT", help="Your own name for it.")
@json_option
def add_address(identity: str | None, label: str, as_json: bool) -> None:
    """List an address (default: this wallet's own); it can be used after the market's delay."""
    with market() as client:
        added = client.add_address(identity or own(client.wallet), label)
    _addresses((added,), as_json)


@address.command("remove")
@click.argument("identity")
@json_option
def remove_address(identity: str, as_json: bool) -> None:
    """Take an address off the list at once; what waits for it is cancelled."""
    with market() as client:
        _addresses(client.remove_address(identity), as_json)


@click.command()
@to_option
@click.option("--keep", "keep_qu", type=click.IntRange(0, QU_MAX), metavar="QU", help="Pay out what is above this.")
@click.option(
    "--least",
    "least_qu",
    type=click.IntRange(1, QU_MAX),
    default=1,
    show_default=True,
    metavar="QU",
    help="In no smaller part.",
)
@click.option("--stop", is_flag=True, help="End the standing order.")
@json_option
def payout(destination: str | None, keep_qu: int | None, least_qu: int, stop: bool, as_json: bool) -> None:
    """Earnings leave by themselves: with --keep, whatever can be withdrawn above it; without options, what is set."""
    if stop and (keep_qu is not None or destination is not None):
        raise BadUsage("--stop", "an order is either set or ended", "Leave --stop out to set it.")
    if destination is not None and keep_qu is None:
        raise BadUsage("--keep", "how much stays in the market is missing", "Say it: --keep 10000")
    with market() as client:
        if stop:
            found = client.stop_payout()
        elif keep_qu is not None:
            found = client.set_payout(destination or own(client.wallet), keep_qu=keep_qu, least_qu=least_qu)
        else:
            found = client.payout()
    _payout(found, as_json)


def own(wallet: Wallet) -> str:
    """Raises `BadUsage` where there is no wallet to be paid out to."""
    identity = wallet.identity
    if identity is None:
        raise BadUsage("--to", "where to is missing", "Name an identity, or make a wallet here: qubix wallet create")
    return identity


def _follow(client: Client, made: WithdrawalView, end_s: float) -> WithdrawalView:
    said = ""
    while made.state not in FINAL_WITHDRAWAL_STATES:
        if made.text != said:
            console(err=True).print(f"  {made.state.value:<10} {made.text}", soft_wrap=True)
            said = made.text
        if time.monotonic() >= end_s:
            raise NotFinished(
                f"the withdrawal {made.withdrawal_id} is still on its way: {made.text}",
                remedy="`qubix wallet withdrawals` shows it; it goes on by itself.",
            )
        time.sleep(LOOK_EACH_S)
        made = client.withdrawal(made.withdrawal_id)
    return made


def _limits(client: Client, as_json: bool) -> None:
    found = client.withdrawable()
    if as_json:
        print_json(found)
        return
    print_pairs(
        [
            ("can be withdrawn", f"{shown.qu(found.withdrawable_qu)} of {shown.qu(found.balance_qu)} QU"),
            ("because", found.text),
            ("not swept yet", f"{shown.qu(found.unswept_qu)} QU" if found.unswept_qu else ""),
            ("earned lately", f"{shown.qu(found.new_earnings_qu)} QU" if found.new_earnings_qu else ""),
            ("at once", f"{shown.qu(found.amount_min_qu)} to {shown.qu(found.amount_max_qu)} QU"),
            ("left today", f"{shown.qu(found.day_left_qu)} QU"),
        ]
    )


def _show(made: WithdrawalView, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    print_pairs(
        [
            ("withdrawal", made.withdrawal_id),
            ("amount", f"{shown.qu(made.amount_qu)} QU"),
            ("to", made.destination),
            ("state", made.state.value),
            ("which means", made.text),
            ("not before", shown.moment(made.not_before_ms) if made.state is WithdrawalState.WAITING else ""),
            ("transaction", made.tx_id or ""),
        ]
    )


def _addresses(found: tuple[AddressView, ...], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    if not found:
        console().print("No addresses yet: qubix wallet address add")
        return
    lines = [[one.identity, one.label, shown.moment(one.usable_ms)] for one in found]
    print_table(("identity", "label", "can be used from"), lines, spare=("label",))


def _payout(found: PayoutView, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_pairs(
        [
            ("pays out to", found.destination or "nobody: there is no standing order"),
            ("above", f"{shown.qu(found.keep_qu)} QU" if found.destination else ""),
            ("in parts of", f"{shown.qu(found.least_qu)} QU or more" if found.destination else ""),
            ("made so far", shown.qu(found.made) if found.destination else ""),
            ("now", found.text),
        ]
    )
