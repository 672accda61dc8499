# SPDX-License-Identifier: Apache-2.0
"""`qubix rent`."""

from collections.abc import Iterator, Sequence

import click

from qubix.cli import shown
from qubix.cli.exits import FAILED
from qubix.cli.output import console, json_option, market, print_json, print_pairs, print_table
from qubix.cli.which import listing_named
from qubix.client import Client, Rental, RentalGroup
from qubix.errors import BadUsage
from qubix.rental import cheapest_alike, chosen, chosen_alike
from qubix_protocol.api import ListingView
from qubix_protocol.rentals import RentalGroupView, RentalView
from qubix_protocol.states import DeviceKind, RentalReason, RentalState
from qubix_protocol.units import QU_MAX, RENTAL_S_MAX, RENTAL_S_MIN, RENTALS_MAX

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
    "--listing",
    "listings",
    metavar="WHICH",
    multiple=True,
    help="This device, by any name that `qubix offers show` takes (default: the cheapest free one that fits); again for"
    " further ones of the same node.",
)
@click.option(
    "--count",
    type=click.IntRange(1, RENTALS_MAX),
    metavar="N",
    help="So many devices alike of one node, all or none (default: the cheapest that fit).",
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
    listings: tuple[str, ...],
    count: int | None,
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
    """Rent a device for SECONDS, or several of one node together. Shows what it will cost and asks first."""
    if count is not None and listings:
        raise BadUsage("--count", "the devices are named already", "Give --count or --listing, not both")
    with market() as client:
        named = [listing_named(client, one, "--listing") for one in listings]
        offers = client.offers(kind=kind, backend=backend, provider=provider)
        if max(len(named), count or 1) > 1:
            _start_group(client, offers, named, count, seconds, rate_max, cap_qu, key, yes, watch, as_json)
            return
        one = chosen(offers, named[0] if named else None, rate_max)[0]
        # What was shown and agreed to is what is rented, whatever else becomes free or cheaper meanwhile.
        rate = one.rate_qu_per_h
        if not yes:
            _agree([one], seconds, cap_qu)
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


def _start_group(
    client: Client,
    offers: Sequence[ListingView],
    named: Sequence[str],
    count: int | None,
    seconds: int,
    rate_max: int | None,
    cap_qu: int | None,
    key: str | None,
    yes: bool,
    watch: bool,
    as_json: bool,
) -> None:
    if watch:
        raise BadUsage("--watch", "it follows one rental", "Start without it, then: qubix rent watch RENTAL")
    devices = [chosen(offers, one, None)[0] for one in named]
    if count is not None:
        first = chosen_alike(offers, count, rate_max)[0]
        devices = cheapest_alike(offers, first, count)
    if not yes:
        _agree(devices, seconds, cap_qu)
    # Those that were shown and agreed to, by name: others alike may be free by then.
    rate = max(one.rate_qu_per_h for one in devices) if rate_max is None else rate_max
    made = client.rent_group(
        [one.listing_id for one in devices],
        seconds=seconds,
        rate_qu_per_h_max=rate,
        cap_qu=cap_qu,
        idempotency_key=key,
    )
    _show_group(made.view, as_json)


def _agree(devices: Sequence[ListingView], seconds: int, cap_qu: int | None) -> None:
    """Shows what they will cost, and asks."""
    price = sum(-(-one.rate_qu_per_h * seconds * 1000 // _MS_PER_H) for one in devices)
    most, rate = min(price, cap_qu or QU_MAX), sum(one.rate_qu_per_h for one in devices)
    names = [one.kind.titled(one.model) for one in devices]
    what = names[0] if len(devices) == 1 else f"{len(devices)} devices of one node ({', '.join(sorted(set(names)))})"
    click.echo(
        f"{what} for {seconds:,} s at {rate:,} QU an hour: at most {most:,} QU are held; only time in which"
        f" {'it answers' if len(devices) == 1 else 'each answers'} is paid, the rest returns.",
        err=True,
    )
    click.confirm("Rent it?" if len(devices) == 1 else "Rent them?", abort=True, err=True)


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
@click.option("--group", is_flag=True, help="With all devices that were rented together with it.")
@json_option
def show(rental_id: object, group: bool, as_json: bool) -> None:
    """One rental with its meter and its money."""
    with market() as client:
        made = client.rental(str(rental_id))
        if group:
            _show_group(_group_of(client, made).view, as_json)
        else:
            _show(made.view, as_json)


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
@click.option("--group", is_flag=True, help="All devices that were rented together with it.")
@json_option
def stop(rental_id: object, group: bool, as_json: bool) -> None:
    """End it now: the answered time is paid, the rest returned at once; its jobs stop."""
    with market() as client:
        made = client.rental(str(rental_id))
        if group:
            _show_group(_group_of(client, made).stop(), as_json)
            return
        made.stop()
        _show(made.view, as_json)


def _group_of(client: Client, made: Rental) -> RentalGroup:
    if made.view.group_id is None:
        raise BadUsage("--group", "it was rented alone", "Leave --group out")
    return client.rental_group(made.view.group_id)


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


def _show_group(view: RentalGroupView, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    print_table(_COLUMNS, [_row(one) for one in view.rentals], right=_RIGHT, spare=_SPARE)
    console().print(
        f"group {view.group_id}: hold {shown.qu(view.hold_qu)}  held {shown.qu(view.held_qu)}  paid"
        f" {shown.qu(view.paid_qu)}  fee {shown.qu(view.fee_qu)}  returned {shown.qu(view.returned_qu)} QU, billed"
        f" {shown.seconds(view.billed_ms)} in all; stop them all: qubix rent stop {view.rentals[0].rental_id} --group",
        soft_wrap=True,
    )


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
            ("together with", f"group {view.group_id}" if view.group_id else ""),
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
