# SPDX-License-Identifier: Apache-2.0
"""`qubix job receipt`: fetch a job's receipt and keep it, or check one that was kept, without a network."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from qubix import pins, receipts
from qubix.cli import rows, shown
from qubix.cli.exits import FAILED
from qubix.cli.output import console, json_option, market, print_json, print_table
from qubix.cli.which import job_named
from qubix.errors import BadUsage
from qubix.files import replace_file
from qubix.receipts import JobReceipt
from qubix.settings import from_environment
from qubix_protocol.arrays import Array
from qubix_protocol.job_receipt import AttemptProof

_COLUMNS = ("attempt", "provider", "verdict", "units", "billed", "paid", "fee", "signed by")
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("which", metavar="[JOB]", required=False)
@click.option("-o", "--out", "out", type=_FILE, metavar="FILE", help="Keep the whole receipt in this file.")
@click.option("--verify", "file", type=_FILE, metavar="FILE", help="Check a receipt that was kept; needs no network.")
@click.option(
    "--coordinator-key",
    "keys",
    multiple=True,
    metavar="HEX",
    help="A coordinator's public key to trust (default: those that this machine has met).",
)
@click.option("--order-key", metavar="HEX", help="The order must be there, signed by this consumer's key.")
@click.option(
    "--result",
    "result",
    type=click.Path(path_type=Path),
    metavar="FILE|DIR",
    help="Check that this downloaded result is the one that was paid.",
)
@click.option("--open", "may_be_open", is_flag=True, help="With --verify: take the receipt of a job that is not over.")
@json_option
def receipt(
    which: str | None,
    out: Path | None,
    file: Path | None,
    keys: tuple[str, ...],
    order_key: str | None,
    result: Path | None,
    may_be_open: bool,
    as_json: bool,
) -> None:
    """Fetch a job's receipt, check it on this machine and show what it proves; or check a kept one with --verify.

    Exit code 0: it holds. 1: it does not, or a kept one is of a job that was not over. 2: it cannot be judged as asked.
    """
    if which is not None and file is None:
        if keys or may_be_open:
            raise BadUsage(
                "--verify", "--coordinator-key and --open are for --verify", "Leave them out, or add --verify"
            )
        with market() as client:
            found = client.job(job_named(client, which)).receipt()
        if order_key is not None:
            receipts.verify(found.raw, found.proof.coordinator_keys, order_key=order_key)
    elif file is not None and which is None:
        found = _verified(_read(file), keys, order_key)
    else:
        raise BadUsage("JOB", "give either a JOB or --verify FILE", "See `qubix job receipt --help`")
    if result is not None:
        found.check_result(load_result(result, [one.name for one in found.proof.opened.outputs]))
    if out is not None:
        _keep(out, found)
    _show(found, out, result, as_json)
    if file is not None and not (found.closed or may_be_open):
        click.echo("qubix: the job was not over when this receipt was fetched; --open takes it as it is", err=True)
        raise click.exceptions.Exit(FAILED)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise BadUsage("--verify", f"cannot read {path}: {problem.strerror}", "Name the file of a receipt") from None


def _verified(data: bytes, keys: tuple[str, ...], order_key: str | None) -> JobReceipt:
    if keys:
        return receipts.verify(data, keys, order_key=order_key)
    signer = receipts.signer_of(data)
    settings = from_environment()
    if signer not in pins.known_keys(settings.data_dir):
        raise BadUsage(
            "--coordinator-key",
            f"this machine has never met the coordinator that the receipt names, {signer}",
            "Ask its operator for its key by a way that you trust, and give it with --coordinator-key",
        )
    return receipts.verify(data, signer, order_key=order_key)


def load_result(path: Path, names: list[str]) -> dict[str, Array]:
    """What `qubix job result` wrote: a folder, or the one file of a job with one output."""
    if path.is_dir():
        return {name: _load(path / f"{name}.npy") for name in names}
    if len(names) != 1:
        raise BadUsage("--result", f"the job has the outputs {', '.join(names)}", "Give the folder with all of them")
    return {names[0]: _load(path)}


def _load(path: Path) -> Array:
    try:
        found: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as problem:
        raise BadUsage("--result", f"cannot read {path}: {problem.strerror or problem}", "Give the result") from None
    except ValueError as problem:
        raise BadUsage(
            "--result", f"{path} is not a .npy file: {problem}", "Give a file of `qubix job result`"
        ) from None
    if not isinstance(found, np.ndarray):
        raise BadUsage("--result", f"{path} is not a .npy file", "Give a file of `qubix job result`")
    return found


def _keep(path: Path, found: JobReceipt) -> None:
    try:
        replace_file(path, found.raw)
    except OSError as problem:
        raise BadUsage("--out", f"cannot write {path}: {problem.strerror}", "Name a file of yours") from None


def _show(found: JobReceipt, out: Path | None, result: Path | None, as_json: bool) -> None:
    if as_json:
        print_json(_plain(found, out, result))
        return
    lines = [_line(one) for one in found.proof.attempts]
    if lines:
        print_table(_COLUMNS, lines, right=rows.ATTEMPT_RIGHT, spare=("provider", "billed"))
    for words in found.words():
        console().print(words)
    if result is not None:
        console().print(f"The result in {result} is the one that was checked and paid.")
    if out is not None:
        console().print(f"Kept in {out}. Anybody can check it: qubix job receipt --verify {out}")
    console().print("Every signature and every sum was checked on this machine.")


def _line(one: AttemptProof) -> list[str]:
    done = one.settlement
    return [
        one.terms.attempt_id,
        shown.peer(one.terms.provider),
        done.verdict if done else "",
        f"{done.units_accepted if done else 0:,} of {one.terms.units:,}",
        shown.seconds(done.billed_ms if done else 0),
        shown.qu(done.paid_qu if done else 0),
        shown.qu(done.fee_qu if done else 0),
        "provider and coordinator" if one.report else "coordinator (the provider made no report)",
    ]


def _plain(found: JobReceipt, out: Path | None, result: Path | None) -> dict[str, Any]:
    proof, closed = found.proof, found.proof.closed
    return {
        "job_id": proof.job_id,
        "network": proof.network,
        "coordinator_keys": [key.hex() for key in proof.coordinator_keys],
        "order_key": proof.order_key.hex() if proof.order_key else None,
        "entries": proof.entries,
        "closed": closed is not None,
        "state": closed.state if closed else None,
        "reason": closed.reason if closed else None,
        "hold_qu": proof.opened.hold_qu,
        "paid_qu": proof.paid_qu,
        "fee_qu": proof.fee_qu,
        "returned_qu": closed.returned_qu if closed else None,
        "attempts": [_plain_attempt(one) for one in proof.attempts],
        "proves": found.words(),
        "result": str(result) if result is not None else None,
        "file": str(out) if out is not None else None,
    }


def _plain_attempt(one: AttemptProof) -> dict[str, Any]:
    done = one.settlement
    return {
        "attempt_id": one.terms.attempt_id,
        "provider": one.terms.provider,
        "rate_qu_per_h": one.terms.rate_qu_per_h,
        "offer_digest": one.terms.offer_digest.hex(),
        "links": [
            {
                "start": part.link.units.start,
                "stop": part.link.units.stop,
                "digest": part.link.output_digest.hex(),
                "taken_ms": part.taken_ms,
                "paid": part.paid,
            }
            for part in one.parts
        ],
        "head": one.head.hex(),
        "check_seed": one.seed.hex() if one.seed else None,
        "reported": one.report is not None,
        "verdict": done.verdict if done else None,
        "billed_ms": done.billed_ms if done else 0,
        "paid_qu": done.paid_qu if done else 0,
        "fee_qu": done.fee_qu if done else 0,
    }
