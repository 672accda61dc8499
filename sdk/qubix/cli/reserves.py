# SPDX-License-Identifier: Apache-2.0
"""`qubix audit reserves` and `qubix wallet proof`: what is owed to all, and one's own part of it (trust.md M10)."""

import asyncio
from pathlib import Path
from typing import Any

import click
import msgspec

from qubix import pins
from qubix import reserves as proofs
from qubix.cli import shown
from qubix.cli.exits import FAILED
from qubix.cli.output import console, json_option, market, print_json, print_pairs, print_table
from qubix.errors import BadUsage, CannotReach, NotGenuine
from qubix.files import replace_file
from qubix.settings import from_environment
from qubix_chain.rpc import Client as Chain
from qubix_chain.rpc.errors import ChainError
from qubix_protocol.reserves import Reserves, ReservesProof, ReservesView
from qubix_protocol.units import NETWORKS

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("reserves")
@click.option("--url", "url", envvar="QUBIX_QUBIC_URL", metavar="URL", help="Ask this Qubic node what is there now.")
@json_option
def reserves(url: str | None, as_json: bool) -> None:
    """What the market owes to all accounts together and what it says is on the chain; with QUBIX_QUBIC_URL set,
    what the chain says. Exit code 1 when less is there than is owed."""
    with market() as client:
        found = client.reserves()
    chain = asyncio.run(_ask(url.split(",")[0].strip(), found)) if url else None
    there = found.held_qu if chain is None else sum(chain.values())
    if as_json:
        print_json({**_plain(found), "on_chain": chain, "there_qu": there, "covered": there >= found.owed_qu})
    else:
        _show(found, chain, there)
    if there < found.owed_qu:
        click.echo(f"qubix: {found.owed_qu - there:,} QU of what is owed are not there", err=True)
        raise click.exceptions.Exit(FAILED)


async def _ask(url: str, found: ReservesView) -> dict[str, int]:
    chain = Chain(url)

    async def balance(public_key: bytes) -> int:
        return (await chain.balance(public_key)).amount_qu

    try:
        return await proofs.on_chain(found, balance)
    except ChainError as problem:
        raise CannotReach(url, str(problem)) from None
    finally:
        await chain.close()


def _plain(found: ReservesView) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(found)
    return plain


def _show(found: ReservesView, chain: dict[str, int] | None, there: int) -> None:
    lines = [
        [
            one.identity,
            one.role,
            shown.qu(one.balance_qu),
            f"{one.tick:,}",
            "" if chain is None else shown.qu(chain[one.identity]),
        ]
        for one in found.holdings
    ]
    columns = ("identity", "role", "signed", "at tick", "on the chain now")
    print_table(columns, lines, right=frozenset(columns[2:]), spare=("on the chain now",) if chain is None else ())
    print_pairs(
        [
            ("owed to all accounts", f"{shown.qu(found.owed_qu)} QU (of at most {found.leaves:,} accounts)"),
            ("there", f"{shown.qu(there)} QU, {'by the chain' if chain is not None else 'by the market’s own word'}"),
            ("as of", shown.moment(found.at_ms)),
            ("root", found.root),
        ]
    )
    if chain is None:
        console().print("Nobody asked the chain: set QUBIX_QUBIC_URL to the address of a Qubic node.")
    console().print("That your own part is counted in what is owed: qubix wallet proof")


@click.command()
@click.option("-o", "--out", "out", type=_FILE, metavar="FILE", help="Keep the proof in this file.")
@click.option("--verify", "file", type=_FILE, metavar="FILE", help="Check a kept proof; needs no network.")
@click.option(
    "--coordinator-key", "key", metavar="HEX", help="The coordinator's public key (default: those met from here)."
)
@json_option
def proof(out: Path | None, file: Path | None, key: str | None, as_json: bool) -> None:
    """Find your own part in the published total of what the market owes."""
    if file is None:
        with market() as client:
            found = client.reserves_proof()
            network = client.network()
        said = proofs.check(found, network.coordinator_key, network.network)
    else:
        found = proofs.proof_from_file(_read(file))
        said = _checked(found, key)
    if out is not None:
        _keep(out, found)
    if as_json:
        print_json(
            {"account_id": found.account_id, "amount_qu": found.amount_qu, "owed_qu": said.owed_qu, "at_ms": said.at_ms}
        )
        return
    console().print(
        f"Account {found.account_id} is counted with {found.amount_qu:,} QU in the {said.owed_qu:,} QU that the market"
        f" signed on {shown.moment(said.at_ms)} to owe. That is all it had: free, held, staked and on its way out."
    )
    console().print("If it had another amount then, this proof is the evidence. Nobody else's was needed to check it.")


def _checked(found: ReservesProof, key: str | None) -> Reserves:
    keys = [key] if key is not None else sorted(pins.known_keys(from_environment().data_dir))
    if not keys:
        raise BadUsage("--coordinator-key", "this machine has met no coordinator", "Give the coordinator's key")
    problem: NotGenuine | None = None
    for one in keys:
        for network in NETWORKS:
            try:
                proofs.read(found.statement, one, network)
            except NotGenuine as error:
                problem = error
                continue
            return proofs.check(found, one, network)
    assert problem is not None, "at least one key was tried"
    raise problem


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise BadUsage("--verify", f"cannot read {path}: {problem.strerror}", "Name the file of a proof") from None


def _keep(path: Path, found: ReservesProof) -> None:
    try:
        replace_file(path, msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    except OSError as problem:
        raise BadUsage("--out", f"cannot write {path}: {problem.strerror}", "Name a file of yours") from None
