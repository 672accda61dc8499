# SPDX-License-Identifier: Apache-2.0
"""A job's progress: a live bar in a terminal, one line for each change anywhere else."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from qubix.client import Job
from qubix.job import Update


def watch(job: Job, console: Console, timeout_s: float | None = None) -> Update:
    """Until the job is over; its last update. Raises `NotFinished`."""
    return _bar(job, console, timeout_s) if console.is_terminal else _lines(job, console, timeout_s)


def _bar(job: Job, console: Console, timeout_s: float | None) -> Update:
    columns = (TextColumn("{task.description:<10}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[said]}", style="dim"), console=console) as progress:
        bar = progress.add_task("queued", total=1.0, said="")
        for update in job.follow(timeout_s):
            progress.update(bar, completed=update.fraction, description=str(update.state), said=_said(update))
    return update


def _lines(job: Job, console: Console, timeout_s: float | None) -> Update:
    shown = ""
    for update in job.follow(timeout_s):
        line = f"  {update.state:<10} {update.fraction * 100:5.1f} %  {_said(update)}".rstrip()
        if line != shown:
            console.print(line, soft_wrap=True)
        shown = line
    return update


def _said(update: Update) -> str:
    if update.eta_s is not None:
        return f"expected to end in {update.eta_s:,.0f} s" if update.eta_s >= 1 else "expected to end within a second"
    return update.reason_text
