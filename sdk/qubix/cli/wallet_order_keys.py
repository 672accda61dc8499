# SPDX-License-Identifier: Apache-2.0
"""`qubix wallet keys`: the keys that sign the account's orders."""

import click

from qubix.cli import secrets, shown
from qubix.cli.output import console, json_option, market, print_json, print_table
from qubix.client import Client
from qubix.wallet import Wallet
from qubix_protocol.order_keys import OrderKeysView, OrderKeyView

_WAYS = {"order": "its first signed order", "session": "a session", "key": "key ", "wallet": "wallet "}
by_wallet = click.option(
    "--by-wallet", is_flag=True, help="Have the Qubic wallet on this machine sign for it, instead of the order key."
)


@click.group()
def keys() -> None:
    """The keys that sign this account's orders: each machine and browser has its own."""


@keys.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Which keys sign, since when, and by whose word; those that were revoked last."""
    with market() as client:
        _told(client, client.order_keys.list(), as_json)


@keys.command()
@click.option("--name", default="", metavar="TEXT", help="What the key is listed as (default: this machine's name).")
@json_option
def request(name: str, as_json: bool) -> None:
    """Ask for this machine's key: a text to give to `qubix wallet keys add` on a machine whose key signs already."""
    with market() as client:
        text = client.order_keys.request(name=name)
    print_json({"request": text}) if as_json else click.echo(text)


@keys.command()
@click.argument("request", required=False)
@click.option("--name", default="", metavar="TEXT", help="What this machine's key is listed as.")
@click.option("--yes", "confirmed", is_flag=True, help="Do not ask whether it is the key that you mean.")
@by_wallet
@json_option
def add(request: str | None, name: str, confirmed: bool, by_wallet: bool, as_json: bool) -> None:
    """Let another key sign the account's orders: that of REQUEST, which a browser or another machine shows, or without
    it this machine's own.

    This machine's key signs for it, or with --by-wallet the wallet; an account's first key needs neither."""
    with market() as client:
        if request is not None:
            asked = client.order_keys.read(request)
            if not confirmed:
                said = f"Let the key {asked.public_key} ({asked.kind}, {asked.name!r}) spend from your account?"
                click.confirm(said, abort=True, err=True)
        _told(client, client.order_keys.add(request, wallet=_signing(client, by_wallet), name=name), as_json)


@keys.command()
@click.argument("public_key", metavar="KEY")
@by_wallet
@json_option
def revoke(public_key: str, by_wallet: bool, as_json: bool) -> None:
    """Take no further order of KEY, at once and for good. The last key of an account goes by the wallet alone."""
    with market() as client:
        _told(client, client.order_keys.revoke(public_key, wallet=_signing(client, by_wallet)), as_json)


@keys.command()
@click.argument("identity")
@json_option
def trust(identity: str, as_json: bool) -> None:
    """Let a bound wallet add and revoke keys, too: this machine's key signs for it."""
    with market() as client:
        found = client.order_keys.trust_wallet(identity)
    if as_json:
        print_json(found)
    else:
        console().print(f"{identity} adds and revokes keys from now on", soft_wrap=True)


def _signing(client: Client, by_wallet: bool) -> Wallet | None:
    if not by_wallet:
        return None
    secrets.unlock(client.wallet, client.settings)
    return client.wallet


def _told(client: Client, found: OrderKeysView, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    mine = client.wallet.public_key
    rows = [
        [
            one.public_key,
            f"{one.name} ({one.kind})" + (", here" if one.public_key == mine else ""),
            shown.moment(one.created_ms),
            _by(one.added_by, one.added_by_key, one.added_by_identity),
            "never" if one.last_used_ms is None else shown.moment(one.last_used_ms),
            _revoked(one),
        ]
        for one in found.keys
    ]
    print_table(("key", "what it is", "added", "by", "last used", "revoked"), rows)
    if found.signed and not found.wallet_approves:
        console().print(
            "No wallet could add another key: who loses every key spends no more from this account. Bind one"
            " (qubix wallet login --bind), and let it add keys (qubix wallet keys trust IDENTITY)."
        )
    if not found.signed:
        console().print(
            "Orders of this account need no signature yet: the first key that is added or used changes that."
        )


def _by(way: str, key: str | None, identity: str) -> str:
    return _WAYS[way] + (key or identity)[:12]


def _revoked(one: OrderKeyView) -> str:
    if one.revoked_ms is None or one.revoked_by is None:
        return ""
    return f"{shown.moment(one.revoked_ms)} by {_by(one.revoked_by, one.revoked_by_key, one.revoked_by_identity)}"
