# SPDX-License-Identifier: Apache-2.0
"""What a person types without seeing it: the passphrase and the seed. Never an argument: other programs see those."""

import sys
import warnings
from getpass import GetPassWarning
from pathlib import Path

import click

from qubix import keystore, passphrase
from qubix.errors import BadUsage
from qubix.files import read_private
from qubix.keystore import Kept
from qubix.settings import Settings
from qubix.wallet import Wallet


def ask_passphrase(settings: Settings, *, new: bool = False) -> str:
    """From the settings, or asked for; twice when it is a new one."""
    given = passphrase.given(settings)
    return given if given is not None else _hidden("Passphrase", "QUBIX_WALLET_PASSPHRASE_FILE", again=new)


def passphrase_for(kept: Kept, settings: Settings) -> str | None:
    return ask_passphrase(settings) if kept.needs_passphrase else None


def unlock(wallet: Wallet, settings: Settings) -> None:
    """Raises `NoWallet` before it asks for anything."""
    wallet.unlock(passphrase_for(keystore.read_existing(settings.data_dir), settings))


def ask_seed(source: str | None) -> str:
    """Asked for, or from a private file, or from standard input (`-`)."""
    if source is None:
        return _hidden("Seed (55 letters)", "--seed-file")
    if source == "-":
        return sys.stdin.readline().strip()
    content = read_private(Path(source))
    if content is None:
        raise BadUsage("--seed-file", f"there is no file {source}", "Name a file of your own that holds the seed.")
    return content.decode("ascii", "replace").strip()


def _hidden(what: str, otherwise: str, *, again: bool = False) -> str:
    """Never where it would be seen: without a terminal to ask in, the answer would be echoed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", GetPassWarning)
            typed: str = click.prompt(what, hide_input=True, confirmation_prompt=again, err=True)
    except (click.Abort, GetPassWarning):
        click.echo(err=True)
        name = what.partition(" (")[0].lower()
        raise BadUsage(name, f"no {name} was typed", f"Type it in a terminal, or give it by {otherwise}.") from None
    return typed
