# SPDX-License-Identifier: Apache-2.0
"""`qubix rent`."""

from collections.abc import Iterator

import click

from qubix.cli import shown
from qubix.cli.exits import FAILED
from qubix.cli.output import console, json_option, market, print_json, print_pairs, print_table
from qubix.client import Rental
from qubix.rental import chosen
from qubix_protocol.rentals import RentalView
from qubix_protocol.states import DeviceKind, RentalReason, RentalState
from qubix_protocol.units import QU_MAX, RENTAL_S_MAX, RENTAL_S_MIN

_COLUMNS = (
    "rental",
    "device",
    "state",
    "why",
    "QU an hour",
    "time",
    "billed",
    "held",
    "paid + fee",
    "returned",
    "created",
)
_RIGHT = frozenset({"QU an hour", "time", "billed", "held", "paid + fee", "returned"})
_SPARE = ("why", "created", "returned", "held", "time")
_MS_PER_H = 3_600_000
_FINE = frozenset({RentalReason.STOPPED_BY_CONSUMER, RentalReason.TIME_OVER, RentalReason.HOLD_USED_UP})
key_option = click.option("--key", metavar="TEXT", help="Idempotency key: the same one again is the same request.")
cap_option = click.option("--cap", "cap_qu", type=click.IntRange(1, QU_MAX), metavar="QU", help="The most it may cost.")
seconds_argument = click.argument("seconds", type=click.IntRange(RENTAL_S_MIN, RENTAL_S_MAX))


@click.group()
def rent() -> None:
    """A device for a time, paid by the second in which it answers."""


@rent.command()
@seconds_argument
@click.option(
    "--listing", type=click.UUID, metavar="ID", help="This device (default: the cheapest free one that fits)."
)
@click.option("--kind", type=click.Choice([str(kind) for kind in DeviceKind]), help="Kind of device.")
@click.option("--backend", metavar="NAME", help="Only devices with this back end, such as cuda or cpu.")
@click.option("--provider", metavar="PEER", help="Only this provider's.")
@click.option("--rate-max", type=click.IntRange(min=0), metavar="QU", help="Most QU for an hour.")
@cap_option
@key_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--watch", is_flag=True, help="Follow it to its end.")
@json_option
def start(
    seconds: int,
    listing: object | None,
    kind: str | None,
    backend: str | None,
    provider: str | None,
    rate_max: int | None,
    cap_qu: int | None,
    key: str | None,
    yes: bool,
    watch: bool,
    as_json: bool,
) -> None:
    """Rent a device for SECONDS. Shows what it will cost and asks first."""
    named = str(listing) if listing is not None else None
    with market() as client:
        offers = client.offers(kind=kind, backend=backend, provider=provider)
        one = chosen(offers, named, rate_max)[0]
        # What was shown and agreed to is what is rented, whatever else becomes free or cheaper meanwhile.
        rate = one.rate_qu_per_h
        most = min(-(-rate * seconds * 1000 // _MS_PER_H), cap_qu or QU_MAX)
        if not yes:
            device = one.kind.titled(one.model)
            click.echo(
                f"{device} for {seconds:,} s at {rate:,} QU an hour: at most {most:,} QU are held; only time in which"
                " it answers is paid, the rest returns.",
                err=True,
            )
            click.confirm("Rent it?", abort=True, err=True)
        rate_agreed = rate if rate_max is None else rate_max
        made = client.rent(
            one.listing_id, seconds=seconds, rate_qu_per_h_max=rate_agreed, cap_qu=cap_qu, idempotency_key=key
        )
        if watch:
            _watch(made, as_json, None)
        elif as_json:
            print_json(made.view)
        else:
            console().print(
                f"rental {made.id} is {made.view.state}; run a job on it: qubix job submit KERNEL --rental {made.id} …;"
                f" stop it: qubix rent stop {made.id}",
                soft_wrap=True,
            )


@rent.command("list")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="Most rentals to show.")
@click.option("--after", metavar="CURSOR", help="Go on after this cursor of an earlier page.")
@json_option
def list_rentals(limit: int, after: str | None, as_json: bool) -> None:
    """Your rentals, newest first."""
    with market() as client:
        found = client.rentals(after=after, limit=limit)
    if as_json:
        print_json(found)
    elif found.rentals:
        print_table(_COLUMNS, [_row(one) for one in found.rentals], right=_RIGHT, spare=_SPARE)
        if found.next:
            console().print(f"More: qubix rent list --after {found.next}")
    else:
        console().print("No rentals yet. `qubix rent start --help` shows how to begin one.")


@rent.command()
@click.argument("rental_id", type=click.UUID, metavar="RENTAL")
@json_option
def show(rental_id: object, as_json: bool) -> None:
    """One rental with its meter and its money."""
    with market() as client:
        _show(client.rental(str(rental_id)).view, as_json)


@rent.command()
@click.argument("rental_id", type=click.UUID, metavar="RENTAL")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), help="Seconds to wait at most.")
@json_option
def watch(rental_id: object, timeout_s: float | None, as_json: bool) -> None:
    """Follow a rental to its end; exit code 1 when the provider ended it."""
    with market() as client:
        _watch(client.rental(str(rental_id)), as_json, timeout_s)


@rent.command()
@click.argument("rental_id", type=click.UUID, metavar="RENTAL")
@json_option
def stop(rental_id: object, as_json: bool) -> None:
    """End it now: the answered time is paid, the rest returned at once; its jobs stop."""
    with market() as client:
        made = client.rental(str(rental_id))
        made.stop()
        _show(made.view, as_json)


@rent.command()
@click.argument("rental_id", type=click.UUID, metavar="RENTAL")
@seconds_argument
@cap_option
@key_option
@json_option
def extend(rental_id: object, seconds: int, cap_qu: int | None, key: str | None, as_json: bool) -> None:
    """Add SECONDS at the same rate."""
    with market() as client:
        made = client.rental(str(rental_id))
        made.extend(seconds, cap_qu=cap_qu, idempotency_key=key)
        _show(made.view, as_json)


def _watch(made: Rental, as_json: bool, timeout_s: float | None) -> None:
    try:
        for line in _lines(made, timeout_s):
            console(err=as_json).print(line, soft_wrap=True)
    except KeyboardInterrupt:
        click.echo(_goes_on(made.view), err=True)
        raise click.exceptions.Exit(FAILED) from None
    _show(made.view, as_json)
    if made.view.reason not in _FINE:
        click.echo(f"qubix: rental {made.id} is over: {made.view.reason_text}", err=True)
        raise click.exceptions.Exit(FAILED)


def _lines(made: Rental, timeout_s: float | None) -> Iterator[str]:
    """One for each change that a person would want to know of."""
    told = ""
    for view in made.follow(timeout_s):
        line = f"  {view.state:<12} billed {shown.seconds(view.billed_ms)}, {view.owed_qu:,} QU  {_why(view)}".rstrip()
        if line != told:
            yield line
        told = line


def _goes_on(view: RentalView) -> str:
    """What it costs to leave it running."""
    left = view.hold_qu - view.owed_qu
    return (
        f"The rental goes on at {view.rate_qu_per_h:,} QU an hour and costs up to {left:,} QU more."
        f" Stop it: qubix rent stop {view.rental_id}. Follow it: qubix rent watch {view.rental_id}"
    )


def _why(view: RentalView) -> str:
    if view.closing is not None and view.state is not RentalState.ENDED:
        ends = shown.moment(view.ends_ms) if view.ends_ms is not None else ""
        return f"the provider ends it at {ends}: {view.detail}".rstrip(": ")
    return view.reason_text


def _row(one: RentalView) -> list[str]:
    return [
        one.rental_id,
        shown.short_model(one.kind.titled(one.model)),
        str(one.state),
        _why(one),
        shown.qu(one.rate_qu_per_h),
        f"{one.seconds:,} s",
        shown.seconds(one.billed_ms),
        shown.qu(one.held_qu),
        shown.qu(one.paid_qu + one.fee_qu),
        shown.qu(one.returned_qu),
        shown.moment(one.created_ms),
    ]


def _show(view: RentalView, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    print_pairs(
        [
            ("rental", view.rental_id),
            ("device", f"{view.kind.titled(view.model)} ({', '.join(view.backends)})"),
            ("provider", view.provider),
            ("state", f"{view.state}  {_why(view)}".strip()),
            ("detail", view.detail),
            ("rate", f"{shown.qu(view.rate_qu_per_h)} QU an hour"),
            ("time", f"{view.seconds:,} s, billed {shown.seconds(view.billed_ms)}"),
            ("ends", shown.moment(view.ends_ms) if view.ends_ms is not None and view.ended_ms is None else ""),
            (
                "QU",
                f"hold {shown.qu(view.hold_qu)}  held {shown.qu(view.held_qu)}  paid {shown.qu(view.paid_qu)}"
                f"  fee {shown.qu(view.fee_qu)}  returned {shown.qu(view.returned_qu)}",
            ),
        ]
    )
