# SPDX-License-Identifier: Apache-2.0
"""`qubix provider`: what a node on this machine earned, and how to get at it."""

from pathlib import Path

import click

from qubix import files
from qubix.cli import shown
from qubix.cli.output import json_option, market, print_json, print_pairs
from qubix.errors import BadUsage
from qubix_protocol.keys import SigningKey

KEY_FILE = "node.key"
SEED_BYTES = 32


@click.group()
def provider() -> None:
    """The account of the node on this machine: what it earned is there."""


@provider.command()
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The node's key (default: node.key in the data folder).",
)
@click.option(
    "--name", default="", metavar="TEXT", help="What this session is listed as (default: this machine's name)."
)
@json_option
def login(key_file: Path | None, name: str, as_json: bool) -> None:
    """Open the node's account by the node's own key. From then on `qubix wallet` is about that account: bind a wallet,
    withdraw, have earnings paid out by themselves. `qubix wallet logout` ends it."""
    with market() as client:
        path = key_file or client.settings.data_dir / KEY_FILE
        view = client.sign_in_by_key(_key(path), name=name)
    if as_json:
        told = {"account_id": view.account_id, "session_id": view.session.session_id}
        print_json({**told, "expires_ms": view.session.expires_ms})
        return
    ends = view.session.expires_ms
    print_pairs(
        [
            ("signed in", "by the node's key"),
            ("account", view.account_id),
            ("until", "" if ends is None else shown.moment(ends)),
            ("next", "qubix wallet earnings; qubix wallet login --bind; qubix wallet payout"),
        ]
    )


def _key(path: Path) -> SigningKey:
    seed = files.read_private(path)
    if seed is None:
        raise BadUsage(
            "--key-file",
            f"there is no node's key at {path}",
            "Start `qubix node` once, or name the file (it is node.key in the node's data folder)",
        )
    if len(seed) != SEED_BYTES:
        raise BadUsage("--key-file", f"{path} holds no key", f"A node's key has {SEED_BYTES} bytes")
    return SigningKey(seed)
