# SPDX-License-Identifier: Apache-2.0
"""Offers, jobs and attempts as tables, each in its columns, wherever they are shown."""

from collections.abc import Sequence

from rich.console import Console

from qubix.cli import readings, rows
from qubix.cli.output import print_table
from qubix_protocol.api import AttemptView, JobView, ListingView


def print_offers(found: Sequence[ListingView], *, to: Console | None = None) -> None:
    lines = [rows.offer(one) for one in found]
    print_table(rows.OFFER_COLUMNS, lines, right=rows.OFFER_RIGHT, spare=rows.OFFER_SPARE, shorten=rows.SHORTEN, to=to)


def print_readings(found: Sequence[ListingView], *, to: Console | None = None) -> None:
    lines = [readings.row(one) for one in found]
    print_table(readings.COLUMNS, lines, right=readings.RIGHT, spare=readings.SPARE, shorten=readings.SHORTEN, to=to)


def print_jobs(found: Sequence[JobView]) -> None:
    print_table(rows.JOB_COLUMNS, [rows.job(one) for one in found], right=rows.JOB_RIGHT, spare=rows.JOB_SPARE)


def print_attempts(found: Sequence[AttemptView]) -> None:
    lines = [rows.attempt(one) for one in found]
    print_table(rows.ATTEMPT_COLUMNS, lines, right=rows.ATTEMPT_RIGHT, spare=rows.ATTEMPT_SPARE)
