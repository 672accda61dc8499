# SPDX-License-Identifier: Apache-2.0
"""`qubix wallet create`, `import` and `seed`: the Qubic key on this machine. Nothing here talks to anybody."""

import click

from qubix import keystore
from qubix.cli.output import console, json_option, print_json, print_pairs
from qubix.cli.secrets import ask_passphrase, ask_seed, passphrase_for
from qubix.keystore import Keyring
from qubix.settings import Settings, from_environment
from qubix.wallet import Wallet

KEPT_IN = {"file": "an encrypted file", "keyring": "the system's keyring"}
keyring_option = click.option(
    "--keyring", "in_keyring", is_flag=True, help="Keep the seed in the system's keyring instead of an encrypted file."
)


@click.command()
@keyring_option
@json_option
def create(in_keyring: bool, as_json: bool) -> None:
    """Make a Qubic wallet: an identity, and the seed that owns it, kept encrypted on this machine."""
    settings = from_environment()
    passphrase, keyring = _where(settings, in_keyring)
    _made(Wallet.create(settings.data_dir, passphrase=passphrase, keyring=keyring), as_json)
    if not as_json:
        console().print("Write the seed down on paper: `qubix wallet seed` shows it. Nobody can restore it for you.")


@click.command("import")
@click.option("--seed-file", metavar="FILE", help="Read the seed from a file (mode 600), or from standard input: -")
@keyring_option
@json_option
def import_(seed_file: str | None, in_keyring: bool, as_json: bool) -> None:
    """Bring a seed of your own. It is asked for without being shown, and never sent anywhere."""
    settings = from_environment()
    keystore.refuse_second(settings.data_dir)
    seed = ask_seed(seed_file)
    passphrase, keyring = _where(settings, in_keyring)
    _made(Wallet.import_seed(settings.data_dir, seed, passphrase=passphrase, keyring=keyring), as_json)


@click.command()
@click.option("--yes", "confirmed", is_flag=True, help="Do not ask whether anybody is looking.")
def seed(confirmed: bool) -> None:
    """Show the seed, to write it down. Whoever reads it owns the wallet's QU."""
    settings = from_environment()
    kept = keystore.read_existing(settings.data_dir)
    if not confirmed:
        click.confirm("Whoever reads the seed owns your QU. Is nobody else looking?", abort=True, err=True)
    wallet = Wallet.open(settings.data_dir)
    click.echo(wallet.reveal_seed(passphrase_for(kept, settings)))


def _where(settings: Settings, in_keyring: bool) -> tuple[str | None, Keyring | None]:
    """Raises `WalletExists` before it asks for a passphrase."""
    keystore.refuse_second(settings.data_dir)
    return (None, keystore.system_keyring()) if in_keyring else (ask_passphrase(settings, new=True), None)


def _made(wallet: Wallet, as_json: bool) -> None:
    kept = wallet.kept
    assert kept is not None, "just made"
    if as_json:
        print_json({"identity": wallet.identity, "kept_in": kept.header.kept_in, "file": str(kept.path)})
    else:
        print_pairs(
            [
                ("identity", kept.header.identity),
                ("kept in", f"{KEPT_IN[kept.header.kept_in]} ({kept.path})"),
            ]
        )
