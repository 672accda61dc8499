# SPDX-License-Identifier: Apache-2.0
"""`qubix job`."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from qubix.cli import rows, shown
from qubix.cli.candidates import agreed, print_estimate
from qubix.cli.dispute import dispute
from qubix.cli.exits import FAILED
from qubix.cli.output import console, json_option, market, print_json, print_pairs, print_table
from qubix.cli.pairs import param_value, split
from qubix.cli.progress import watch as watch_job
from qubix.cli.receipt import receipt
from qubix.cli.tables import print_attempts, print_jobs, print_readings
from qubix.cli.which import job_argument, job_named
from qubix.client import Job
from qubix.errors import BadUsage
from qubix.results import error_of
from qubix_kernels.onnx.signature import wire_names
from qubix_protocol.api import EstimateView, JobView
from qubix_protocol.states import AttemptState
from qubix_protocol.units import QU_MAX, SPREAD_MAX

timeout_option = click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), help="Seconds to wait at most.")


@click.group()
def job() -> None:
    """Submit jobs, follow them, fetch results and receipts; accept or dispute what no verifier checks.

    JOB is a job's id, or its beginning or end, if no other job has it.
    """


job.add_command(dispute)


@job.command()
@click.argument("kernel")
@click.option("-i", "--input", "inputs", multiple=True, metavar="NAME=FILE", help="An array: a .npy file.")
@click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the kernel.")
@click.option("--model", metavar="FILE", help="For the kernel onnx: the model, an .onnx file.")
@click.option("--whole", metavar="NAMES", help="For onnx: inputs that every row gets as they are, commas between.")
@click.option(
    "--cap", "cap_qu", type=click.IntRange(1, QU_MAX), metavar="QU", help="The most it may cost; not with --rental."
)
@click.option(
    "--rental", type=click.UUID, metavar="RENTAL", help="On this rented device, where it costs nothing further."
)
@click.option("--where", metavar="QUERY", help="Only devices that this finds, such as 'gpu_ram>=8 price<500'.")
@click.option("--provider", metavar="PEER", help="Only this provider.")
@click.option("--rate-max", type=click.IntRange(min=0), metavar="QU", help="Most QU for an hour.")
@click.option(
    "--deadline", "deadline_s", type=click.IntRange(1, 604_800), default=3_600, show_default=True, metavar="S"
)
@click.option(
    "--spread",
    type=click.IntRange(1, SPREAD_MAX),
    metavar="N",
    help="At most N devices at once, whatever they ask within your limits (default: up to four of about one price).",
)
@click.option("--region", metavar="NAME", help="Where it would rather run, among devices that cost about the same.")
@click.option("--key", metavar="TEXT", help="Idempotency key: the same one again is the same job, not a second one.")
@click.option("--dry-run", is_flag=True, help="Only show who could run it, for how much and how long.")
@click.option("--yes", is_flag=True, help="Submit without asking; only a terminal is asked.")
@click.option("--watch", is_flag=True, help="Follow it to its end.")
@json_option
def submit(
    kernel: str,
    inputs: tuple[str, ...],
    params: tuple[str, ...],
    model: str | None,
    whole: str | None,
    cap_qu: int | None,
    rental: object | None,
    where: str | None,
    provider: str | None,
    rate_max: int | None,
    deadline_s: int,
    spread: int | None,
    region: str | None,
    key: str | None,
    dry_run: bool,
    yes: bool,
    watch: bool,
    as_json: bool,
) -> None:
    """Upload the inputs, sign the order, start the job.

    On a terminal you see first who would run it. With --dry-run that is all: no job is made, and --cap may be left
    out.

    An AI model: `qubix job submit onnx --model FILE -i NAME=FILE --cap QU`, with the model's own names for its inputs.
    """
    if dry_run and rental is not None:
        raise BadUsage("--dry-run", "a job on a rental costs nothing further", "Leave out --dry-run or --rental")
    if not dry_run and (cap_qu is None) == (rental is None):
        raise BadUsage("--cap", "a job has a cap, or runs on a rental", "Give either --cap or --rental")
    own = {name: value for name, value in (("model", model), ("whole", whole)) if value is not None}
    asked: dict[str, Any] = {
        "where": where,
        "provider": provider,
        "rate_qu_per_h_max": rate_max,
        "deadline_s": deadline_s,
        "region": region,
        "inputs": {**{name: Path(path) for name, path in split("-i", inputs).items()}, **own},
        "params": {name: param_value(text) for name, text in split("-p", params).items()},
    }
    with market() as client:
        if dry_run:
            _show_candidates(client.estimate(kernel, cap_qu=cap_qu, **asked), as_json)
            return
        if cap_qu is not None and not (yes or as_json) and not agreed(client, kernel, asked, cap_qu):
            raise click.Abort
        made = client.submit(
            kernel,
            cap_qu=cap_qu or 0,
            rental=str(rental) if rental is not None else None,
            spread=spread,
            idempotency_key=key,
            **asked,
        )
        if watch:
            _watch(made, as_json, None)
        elif as_json:
            print_json(made.view)
        else:
            console().print(f"job {made.id} is {made.view.state}; follow it: qubix job watch {made.id}", soft_wrap=True)


@job.command("list")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="Most jobs to show.")
@click.option("--after", metavar="CURSOR", help="Go on after this cursor of an earlier page.")
@json_option
def list_jobs(limit: int, after: str | None, as_json: bool) -> None:
    """Your jobs, newest first."""
    with market() as client:
        found = client.jobs(after=after, limit=limit)
    if as_json:
        print_json(found)
    elif found.jobs:
        print_jobs(found.jobs)
        if found.next:
            console().print(f"More: qubix job list --after {found.next}")
    else:
        console().print("No jobs yet. `qubix job submit --help` shows how to start one.")


@job.command()
@job_argument
@json_option
def show(which: str, as_json: bool) -> None:
    """One job with its attempts, its money, and while it runs the readings of the devices that it runs on."""
    with market() as client:
        view = client.job(job_named(client, which)).view
        _show(view, as_json)
        live = {attempt.listing_id for attempt in view.attempts if attempt.state is AttemptState.RUNNING}
        if live and not as_json:
            print_readings([one for one in client.offers() if one.listing_id in live])


@job.command()
@job_argument
@timeout_option
@json_option
def watch(which: str, timeout_s: float | None, as_json: bool) -> None:
    """Follow a job to its end; exit code 1 when it ends without a result."""
    with market() as client:
        _watch(client.job(job_named(client, which)), as_json, timeout_s)


@job.command()
@job_argument
@json_option
def cancel(which: str, as_json: bool) -> None:
    """Stop a job: what was checked is paid, the rest returns."""
    with market() as client:
        _show(client.job(job_named(client, which)).cancel(), as_json)


@job.command()
@job_argument
@json_option
def accept(which: str, as_json: bool) -> None:
    """Say that a delivered result is right: it is paid at once (kernels without a verifier)."""
    with market() as client:
        _show(client.job(job_named(client, which)).accept(), as_json)


@job.command()
@job_argument
@json_option
def settle(which: str, as_json: bool) -> None:
    """Have done what is due for a job by now, or hear when something will be."""
    with market() as client:
        found = client.job(job_named(client, which)).settle()
    if as_json:
        print_json(found)
    else:
        console().print(f"job {found.job_id} is {found.state}: {found.said}.", soft_wrap=True)


@job.command()
@job_argument
@click.option(
    "-o", "--out", "folder", type=click.Path(file_okay=False, path_type=Path), default=".", help="Folder to write to."
)
@timeout_option
@json_option
def result(which: str, folder: Path, timeout_s: float | None, as_json: bool) -> None:
    """Wait for the result and write each output as NAME.npy, in small letters, digits and underscores."""
    with market() as client:
        outputs = client.job(job_named(client, which)).result(timeout_s)
    # A model's outputs may be called anything: what becomes a file's name is plain.
    paths = {name: folder / f"{plain}.npy" for name, plain in wire_names(outputs, ()).items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in outputs.items():
            np.save(paths[name], array, allow_pickle=False)
    except OSError as problem:
        raise BadUsage("--out", f"cannot write to {folder}: {problem.strerror}", "Name a folder of yours") from None
    found = [
        {"name": name, "file": str(paths[name]), "dtype": array.dtype.name, "shape": array.shape}
        for name, array in outputs.items()
    ]
    if as_json:
        print_json(found)
    else:
        print_table(("output", "dtype", "shape", "file"), [[str(one[key]) for key in _RESULT_KEYS] for one in found])


_RESULT_KEYS = ("name", "dtype", "shape", "file")


job.add_command(receipt)


def _show_candidates(found: EstimateView, as_json: bool) -> None:
    """Exit code 1 when nobody fits."""
    if as_json:
        print_json(found)
    else:
        print_estimate(found)
    if not found.fitting:
        raise click.exceptions.Exit(FAILED)


def _watch(made: Job, as_json: bool, timeout_s: float | None) -> None:
    try:
        view = watch_job(made, console(err=as_json), timeout_s).view
    except KeyboardInterrupt:
        click.echo(
            f"The job goes on. Follow it: qubix job watch {made.id}. Stop it: qubix job cancel {made.id}", err=True
        )
        raise click.exceptions.Exit(FAILED) from None
    _show(view, as_json)
    error = error_of(view)
    if error is not None:
        click.echo(f"qubix: {error}", err=True)
        raise click.exceptions.Exit(FAILED)


def _show(view: JobView, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    print_pairs(
        [
            ("job", view.job_id),
            ("kernel", view.kernel),
            ("only where", view.where or ""),
            ("parameters", "  ".join(f"{name}={shown.value(value)}" for name, value in view.params.items())),
            ("inputs", "  ".join(f"{name} {meta.dtype}{list(meta.shape)}" for name, meta in view.inputs.items())),
            ("state", f"{view.state}  {view.reason_text}".strip()),
            ("detail", view.detail),
            ("done", f"{view.fraction * 100:.1f} % ({view.units_accepted:,} of {view.units:,} units accepted)"),
            ("accept until", shown.moment(view.accept_until_ms) if view.accept_until_ms else ""),
            ("QU", "  ".join(f"{name} {amount}" for name, amount in rows.money(view))),
        ]
    )
    if view.attempts:
        print_attempts(view.attempts)
