# SPDX-License-Identifier: Apache-2.0
"""Renting a device: how long, what it costs at most, and only then the order."""

from typing import TYPE_CHECKING, Final

from qubix.cli import shown
from qubix.errors import Unauthorised
from qubix_protocol.api import ListingView
from qubix_protocol.units import QU_MAX, RENTAL_S_MAX, RENTAL_S_MIN
from qubix_tui.widgets.ask import Field, Form, Question, Values, whole

if TYPE_CHECKING:
    from qubix_tui.app import QubixApp

_MS_PER_H: Final = 3_600_000


def most_qu(rate_qu_per_h: int, seconds: int, cap_qu: int | None) -> int:
    """What is held: rate × time, rounded up, or less."""
    full = -(-rate_qu_per_h * seconds * 1000 // _MS_PER_H)
    return full if cap_qu is None else min(full, cap_qu)


def terms(values: Values) -> tuple[int, int | None]:
    """Seconds and cap. Raises `BadUsage`."""
    minutes = whole(values, "minutes", low=-(-RENTAL_S_MIN // 60), high=RENTAL_S_MAX // 60, what="minutes")
    cap = whole(values, "cap", low=1, high=QU_MAX, what="cap") if values["cap"] else None
    return minutes * 60, cap


def rent(app: "QubixApp", one: ListingView) -> None:
    """Asks, shows the most that it can cost, and rents at what was seen. A visitor is asked to sign in first."""
    if app.feed.visiting:
        app.tell(Unauthorised("a rental needs an account", status=401))
        return

    def asked(values: Values | None) -> None:
        if values is not None:
            _confirm(app, one, *terms(values))

    device = one.kind.titled(one.model)
    text = f"{device} at {shown.qu(one.rate_qu_per_h)} QU an hour. Only time in which it answers is paid."
    fields = (
        Field(name="minutes", label="How many minutes", value="60"),
        Field(name="cap", label="At most, in QU (empty: price × time)"),
    )

    def check(values: Values) -> None:
        terms(values)

    app.push_screen(Form("Rent this device", fields, text=text, check=check), asked)


def _confirm(app: "QubixApp", one: ListingView, seconds: int, cap_qu: int | None) -> None:
    most = most_qu(one.rate_qu_per_h, seconds, cap_qu)
    account = app.feed.account
    have = "" if account is None else f"\nYour balance: {shown.qu(account.balance_qu)} QU."
    text = (
        f"{one.kind.titled(one.model)} for {seconds // 60:,} minutes at {shown.qu(one.rate_qu_per_h)} QU an hour.\n"
        f"At most {shown.qu(most)} QU are held; the rest returns.{have}"
    )

    def answered(agreed: bool | None) -> None:
        if agreed:
            work = app.client.rent(one.listing_id, seconds=seconds, rate_qu_per_h_max=one.rate_qu_per_h, cap_qu=cap_qu)
            app.act(
                work,
                lambda made: app.say(f"Rented: {made.view.model} ({made.id}) is {made.view.state}."),
                doing="renting",
            )

    app.push_screen(Question("Rent it?", text), answered)
