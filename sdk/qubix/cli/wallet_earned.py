# SPDX-License-Identifier: Apache-2.0
"""`qubix wallet earnings` and `qubix wallet work`: what a provider earned, and by what."""

import datetime
import zoneinfo
from typing import Final

import click

from qubix.cli import shown
from qubix.cli.output import console, json_option, market, print_json, print_table
from qubix.errors import BadUsage
from qubix_protocol.earnings import EarningsView, Period, Sums, WorkView

_MONEY: Final = ("earned", "fee", "awarded", "taken back", "net")
_RIGHT: Final = frozenset({*_MONEY, "payments", "billed", "paid"})


@click.command()
@click.option(
    "--by", type=click.Choice([str(one) for one in Period]), default="day", show_default=True, help="How to add up."
)
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="Not before this day.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="Before this day.")
@click.option("--tz", default="UTC", show_default=True, metavar="NAME", help="Time zone, such as Europe/Berlin.")
@json_option
def earnings(by: str, since: datetime.datetime | None, until: datetime.datetime | None, tz: str, as_json: bool) -> None:
    """What your nodes earned by day, week or month, and by device."""
    with market() as client:
        found = client.earnings(by=by, since_ms=_ms(since, tz), until_ms=_ms(until, tz), tz=tz)
    if as_json:
        print_json(found)
    elif found.periods:
        _print(found)
    else:
        console().print("Nothing was earned in this time. `qubix node` shares this machine.")


def _print(found: EarningsView) -> None:
    spare = ("awarded", "taken back", "payments", "fee")
    lines = [[one.first_day, *_sums(one)] for one in found.periods]
    heads = (f"{found.by} from", *_MONEY, "payments")
    print_table(heads, [*lines, ["all", *_sums(found.whole)]], right=_RIGHT, spare=spare)
    if len(found.listings) > 1:
        devices = [
            [shown.short_model(one.model) or "other", one.listing_id or "", *_sums(one)] for one in found.listings
        ]
        print_table(("device", "listing", *_MONEY, "payments"), devices, right=_RIGHT, spare=("listing", *spare))


def _sums(one: Sums) -> list[str]:
    amounts = (one.earned_qu, one.fee_qu, one.awarded_qu, one.taken_back_qu, one.net_qu)
    return [*(shown.qu(amount) for amount in amounts), f"{one.settlements:,}"]


def _zone(tz: str) -> datetime.tzinfo:
    try:
        return datetime.UTC if tz == "UTC" else zoneinfo.ZoneInfo(tz)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise BadUsage("tz", f"this machine knows no time zone {tz!r}", "Give a name such as Europe/Berlin") from None


def _ms(day: datetime.datetime | None, tz: str) -> int | None:
    return None if day is None else round(day.replace(tzinfo=_zone(tz)).timestamp() * 1000)


@click.command()
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="Most lines to show.")
@click.option("--after", metavar="CURSOR", help="Go on after this cursor of an earlier page.")
@json_option
def work(limit: int, after: str | None, as_json: bool) -> None:
    """The jobs and rentals that ran on your nodes, newest first."""
    with market() as client:
        found = client.work(after=after, limit=limit)
    if as_json:
        print_json(found)
    elif found.work:
        heads = ("when", "what", "device", "state", "why", "billed", "paid", "fee", "taken back")
        spare = ("taken back", "fee", "why", "device")
        print_table(heads, [_work(one) for one in found.work], right=_RIGHT, spare=spare)
        if found.next:
            console().print(f"More: qubix wallet work --after {found.next}")
    else:
        console().print("Nothing ran on your nodes yet. `qubix node` shares this machine.")


def _work(one: WorkView) -> list[str]:
    return [
        shown.moment(one.created_ms),
        one.kernel or str(one.kind),
        shown.short_model(one.model),
        one.state,
        one.reason_text,
        shown.seconds(one.billed_ms),
        shown.qu(one.paid_qu),
        shown.qu(one.fee_qu),
        shown.qu(one.taken_back_qu),
    ]
