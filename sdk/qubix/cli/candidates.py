# SPDX-License-Identifier: Apache-2.0
"""Who could run a job, for how much and how long: shown before anything is paid."""

import sys
from collections.abc import Mapping
from typing import Any, Final

import click

from qubix.cli import shown
from qubix.cli.output import console, print_table
from qubix.client import Client
from qubix_protocol.api import CandidateView, EstimateView

COLUMNS: Final = (
    "device",
    "cost, QU",
    "at most",
    "time",
    "eight of ten",
    "QU/h",
    "where",
    "reliability",
    "verified",
    "begins",
    "provider",
)
RIGHT: Final = frozenset({"cost, QU", "at most", "time", "eight of ten", "QU/h", "reliability"})
SPARE: Final = ("verified", "QU/h", "where", "reliability", "begins", "eight of ten")
SHORTEN: Final = {"provider": shown.peer, "device": shown.short_model}
FEW: Final = 5


def row(one: CandidateView) -> list[str]:
    return [
        shown.ran_on(one.model, one.backend),
        shown.qu(one.cost_qu),
        shown.qu(one.cost_high_qu) + ("" if one.affordable else " !"),
        shown.seconds(one.time_ms),
        f"{one.time_low_ms / 1000:,.1f} to {one.time_high_ms / 1000:,.1f} s",
        shown.qu(one.rate_qu_per_h),
        one.country or one.region,
        shown.percent(100 * one.reliability) if one.reliability else "no record",
        "yes" if one.verified else "no",
        f"later: {one.waiting}" if one.waiting else "at once",
        one.provider,
    ]


def print_estimate(found: EstimateView, *, most: int | None = None) -> None:
    """The candidates in the order in which they are asked, and how many offers each obstacle keeps out."""
    out, few = console(), found.candidates[:most]
    if few:
        print_table(COLUMNS, [row(one) for one in few], right=RIGHT, spare=SPARE, shorten=SHORTEN)
    if few and found.check_flops:
        out.print(shown.check_paid(found.fee_bps))
    if found.fitting > len(few):
        out.print(f"{found.fitting - len(few):,} more fit.")
    for one in found.obstacles:
        out.print(f"{one.offers:,} offer{'s' if one.offers > 1 else ''} {one.why}.")
    if not found.fitting:
        out.print("Nobody fits now." if found.obstacles else "No provider is in the market.")
        if found.cap_least_qu is not None:
            out.print(f"A cap of {shown.qu(found.cap_least_qu)} QU is the least with which somebody does.")
    if any(not one.affordable for one in few):
        out.print(f"! is above your balance of {shown.qu(found.balance_qu or 0)} QU.")


def agreed(client: Client, kernel: str, asked: Mapping[str, Any], cap_qu: int) -> bool:
    """On a terminal, after a look at who would run it; a script that has no terminal has agreed by its cap."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    print_estimate(client.estimate(kernel, cap_qu=cap_qu, **asked), most=FEW)
    return click.confirm(f"Submit it for at most {shown.qu(cap_qu)} QU?", default=True)
