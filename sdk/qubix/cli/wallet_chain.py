# SPDX-License-Identifier: Apache-2.0
"""`qubix wallet login`, `logout`, `balance`, `deposit`, `deposits`, `prove`: wallet, market, and what is between."""

import asyncio
import io
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import click
import segno

from qubix import onchain
from qubix.cli import secrets, shown
from qubix.cli.output import console, json_option, market, print_json, print_pairs, print_table
from qubix.client import Client
from qubix.errors import BadUsage, NetworkUnreachable, NotFinished, PaymentRefused
from qubix.onchain import Fate, OnChain, Payment
from qubix_chain import identity
from qubix_protocol import payment_uri
from qubix_protocol.deposits import DepositIdentityView, DepositView
from qubix_protocol.units import QU_MAX

T = TypeVar("T")
LOOK_EACH_S: Final = 1.0
_WHY: Final = {
    Fate.NOT_RUN: "the network did not run it: no QU moved, and it can never run",
    Fate.MOVED_NOTHING: "the wallet did not hold the amount when it ran: no QU moved",
}


@click.command()
@click.option(
    "--bind", is_flag=True, help="Bind the wallet to the account that is used now, instead of opening its own."
)
@click.option(
    "--name", default="", metavar="TEXT", help="What this session is listed as (default: this machine's name)."
)
@json_option
def login(bind: bool, name: str, as_json: bool) -> None:
    """Sign in with the Qubic wallet on this machine. What is signed is read first; no QU move."""
    with market() as client:
        secrets.unlock(client.wallet, client.settings)
        if bind:
            bound = client.bind_wallet(client.wallet)
            said = f"{client.wallet.identity} is bound to this account"
            print_json(bound) if as_json else console().print(said, soft_wrap=True)
            return
        view = client.sign_in(client.wallet, name=name)
    if as_json:
        told = {"account_id": view.account_id, "created": view.created, "identity": view.session.identity}
        print_json({**told, "session_id": view.session.session_id, "expires_ms": view.session.expires_ms})
        return
    ends = view.session.expires_ms
    print_pairs(
        [
            ("signed in", view.session.identity),
            ("account", f"{view.account_id}{' (new)' if view.created else ''}"),
            ("until", "" if ends is None else shown.moment(ends)),
        ]
    )


@click.command()
@json_option
def logout(as_json: bool) -> None:
    """End the session of the last login here."""
    with market() as client:
        ended = client.sign_out().ended
    if as_json:
        print_json({"ended": ended})
    else:
        console().print("signed out" if ended else "nobody was signed in here")


@click.command()
@json_option
def balance(as_json: bool) -> None:
    """Both balances: in the market, and of the wallet on the network."""
    with market() as client:
        held = client.balance()
        kept, key = client.wallet.kept, client.wallet.identity
        on_chain, problem = (None, "") if key is None else _chain_balance(client, key)
    if as_json:
        found = {"available_qu": held.available_qu, "held_qu": held.held_qu, "identity": key}
        print_json({**found, "chain_qu": on_chain, "chain_problem": problem})
        return
    chain = "no wallet yet: qubix wallet create" if kept is None else problem
    print_pairs(
        [
            ("in the market", f"{shown.qu(held.available_qu)} QU available, {shown.qu(held.held_qu)} QU held"),
            ("on the network", chain if on_chain is None else f"{shown.qu(on_chain)} QU"),
            ("identity", key or ""),
        ]
    )


@click.command()
@click.argument("amount_qu", type=click.IntRange(1, QU_MAX), metavar="[QU]", required=False)
@click.option("--pay", is_flag=True, help="Pay it from the wallet on this machine, and follow it until it is credited.")
@click.option("--yes", "confirmed", is_flag=True, help="Do not ask before paying.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    help="Seconds to follow it.",
)
@json_option
def deposit(amount_qu: int | None, pay: bool, confirmed: bool, timeout_s: float, as_json: bool) -> None:
    """Where to send QU: identity, amount and a QR code. With --pay, this machine's wallet sends them."""
    with market() as client:
        to = client.deposit_identity()
        if amount_qu is not None and amount_qu < to.amount_min_qu:
            problem = f"the market credits deposits from {to.amount_min_qu:,} QU on; {amount_qu:,} would be lost to you"
            raise BadUsage("QU", problem, f"Deposit at least {to.amount_min_qu:,} QU.")
        if not pay:
            _show(to, amount_qu, as_json)
            return
        if amount_qu is None:
            raise BadUsage("QU", "how much is to be paid is missing", "Say it: qubix wallet deposit 5000 --pay")
        payment = _paid(client, to, amount_qu, confirmed, as_json)
        found = _follow(client, payment, time.monotonic() + timeout_s)
    if as_json:
        print_json(found)
    else:
        console().print(
            f"{shown.qu(found.amount_qu)} QU are on your balance (transaction {found.tx_id})", soft_wrap=True
        )


@click.command()
@click.argument("amount_qu", type=click.IntRange(1, QU_MAX), metavar="QU")
@json_option
def faucet(amount_qu: int, as_json: bool) -> None:
    """Play money for the wallet on this machine, from the devnet's faucet."""
    with market() as client:
        key = client.wallet.identity
        if key is None:
            raise BadUsage("wallet", "there is no Qubic wallet on this machine yet", "Make one: qubix wallet create")
        tx_id = asyncio.run(onchain.faucet(client.settings, client.network().network, key, amount_qu))
    if as_json:
        print_json({"identity": key, "amount_qu": amount_qu, "tx_id": tx_id})
    else:
        console().print(f"{shown.qu(amount_qu)} QU are on their way to {key} (transaction {tx_id})", soft_wrap=True)


@click.command()
@click.argument("wallet_identity", metavar="IDENTITY")
@json_option
def prove(wallet_identity: str, as_json: bool) -> None:
    """For a wallet that cannot sign texts: the exact payment that lets withdrawals go to it. It is a deposit, too."""
    with market() as client:
        found = client.prove_wallet_by_payment(wallet_identity)
    if as_json:
        print_json(found)
        return
    _code(found.uri)
    print_pairs(
        [
            ("send exactly", f"{found.amount_qu:,} QU"),
            ("from", found.identity),
            ("to", found.pay_to),
            ("before", shown.moment(found.expires_ms)),
            ("code", found.uri),
            ("note", found.hint),
        ]
    )


@click.command()
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="Most lines to show.")
@click.option("--after", metavar="CURSOR", help="Go on after this cursor of an earlier page.")
@json_option
def deposits(limit: int, after: str | None, as_json: bool) -> None:
    """What came in, newest first, each with its transaction."""
    with market() as client:
        found = client.deposits(after=after, limit=limit)
    if as_json:
        print_json(found)
        return
    lines = [
        [shown.moment(one.seen_ms), shown.qu(one.amount_qu), one.state, one.text, str(one.tick), one.tx_id]
        for one in found.deposits
    ]
    if lines:
        print_table(
            ("when", "QU", "state", "which means", "tick", "transaction"), lines, right=frozenset({"QU", "tick"})
        )
    else:
        console().print("No deposits yet. `qubix wallet deposit` says where to send QU.")
    if found.chain.text:
        console(err=True).print(f"Now: {found.chain.text}.", soft_wrap=True)
    if found.next:
        console().print(f"More: qubix wallet deposits --after {found.next}")


def _show(to: DepositIdentityView, amount_qu: int | None, as_json: bool) -> None:
    uri = "" if amount_qu is None else payment_uri.Payment(to.identity, amount_qu).uri()
    if as_json:
        told: dict[str, Any] = {"identity": to.identity, "amount_qu": amount_qu, "amount_min_qu": to.amount_min_qu}
        print_json({**told, "network": to.network, "uri": uri, "chain": to.chain})
        return
    _code(uri or to.identity)
    exactly = f"at least {to.amount_min_qu:,} QU" if amount_qu is None else f"{amount_qu:,} QU"
    play = " (play money)" if to.network == "devnet" else ""
    print_pairs([("send", exactly), ("to", to.identity), ("network", f"{to.network}{play}"), ("code", uri)])
    if to.chain.text:
        console(err=True).print(f"Now: {to.chain.text}.", soft_wrap=True)


def _code(text: str) -> None:
    code = io.StringIO()
    segno.make(text, micro=False).terminal(code, border=2, compact=True)
    click.echo(code.getvalue())


def _paid(client: Client, to: DepositIdentityView, amount_qu: int, confirmed: bool, as_json: bool) -> Payment:
    """Its id is told before it is sent: from then on it may run, whatever becomes of this command."""
    secrets.unlock(client.wallet, client.settings)

    async def signed(chain: OnChain) -> tuple[Payment, str]:
        return await chain.sign_payment(client.wallet, to.identity, amount_qu), chain.where

    if not confirmed:
        asked = f"Pay {amount_qu:,} QU on {to.network} from {client.wallet.identity} to {to.identity}?"
        click.confirm(asked, abort=True, err=True)
    payment, where = _on_chain(client, signed)
    out = console(err=as_json)
    out.print(f"transaction {payment.tx_id}, to run in tick {payment.tick}, goes to {where}", soft_wrap=True)
    try:
        _on_chain(client, lambda chain: chain.send(payment))
    except NetworkUnreachable as problem:
        console(err=True).print(f"{problem}; whether it has the payment is not known: following it", soft_wrap=True)
    return payment


def _follow(client: Client, payment: Payment, end_s: float) -> DepositView:
    """Raises `PaymentRefused` when it moved nothing, or is not credited; `NotFinished` when the time is over."""
    said = ""
    while True:
        found = next((one for one in client.deposits(limit=20).deposits if one.tx_id == payment.tx_id), None)
        if found is not None and found.state == "seen":
            raise PaymentRefused(f"the payment came in and is not credited: {found.text}", remedy="Ask the operator.")
        if found is not None:
            return found
        now = _stands(client, payment)
        if now != said:
            console(err=True).print(f"  {now}", soft_wrap=True)
            said = now
        if time.monotonic() >= end_s:
            raise NotFinished(
                f"the payment {payment.tx_id} is not credited yet: {now}",
                remedy="`qubix wallet deposits` shows it once it is; pay again only when it is known to have failed.",
            )
        time.sleep(LOOK_EACH_S)


def _stands(client: Client, payment: Payment) -> str:
    try:
        fate = _on_chain(client, lambda chain: chain.fate(payment))
    except NetworkUnreachable as problem:
        return str(problem)
    if fate in _WHY:
        raise PaymentRefused(f"the payment {payment.tx_id} failed: {_WHY[fate]}", remedy="Pay again.")
    return "waiting for its tick" if fate is None else "the network ran it; waiting for the market to credit it"


def _chain_balance(client: Client, key: str) -> tuple[int | None, str]:
    try:
        return _on_chain(client, lambda chain: chain.balance_qu(identity.decode(key))), ""
    except NetworkUnreachable as problem:
        return None, str(problem)


def _on_chain(client: Client, ask: Callable[[OnChain], Awaitable[T]]) -> T:
    network = client.network().network

    async def asked() -> T:
        async with onchain.network_of(client.settings, network) as chain:
            return await ask(chain)

    return asyncio.run(asked())
