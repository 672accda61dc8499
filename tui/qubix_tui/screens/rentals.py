# SPDX-License-Identifier: Apache-2.0
"""The account's rentals: what each costs so far, more time, the end."""

from collections.abc import Sequence
from typing import Any, ClassVar

from textual.binding import Binding, BindingType

from qubix.cli import shown
from qubix.errors import BadUsage
from qubix.rental import AsyncRental
from qubix_protocol.rentals import RentalView
from qubix_protocol.states import RentalState
from qubix_tui import marks
from qubix_tui.columns import Column
from qubix_tui.screens.lists import LIMIT, ListPage
from qubix_tui.screens.renting import most_qu, terms
from qubix_tui.screens.run import RunPage
from qubix_tui.screens.sheets import SheetWindow
from qubix_tui.widgets.ask import Field, Form, Question, Values
from qubix_tui.widgets.pairs import pairs


class RentalsPage(ListPage[RentalView]):
    place = "rentals"
    none_yet = "No rentals yet.\nn on the Market screen (1) rents a device."
    columns: ClassVar[Sequence[Column[Any]]] = (
        Column(name="rental", width=8, text=lambda one, _: one.rental_id[:8]),
        Column(name="device", width=14, text=lambda one, _: one.kind.titled(one.model), grow=True),
        Column(name="state", width=13, text=lambda one, _: marks.RENTAL[one.state]),
        Column(name="why", width=20, text=lambda one, _: one.reason_text, spare=2, grow=True),
        Column(name="QU/h", width=9, text=lambda one, _: shown.qu(one.rate_qu_per_h), right=True),
        Column(name="minutes", width=7, text=lambda one, _: f"{one.seconds // 60:,}", right=True),
        Column(name="billed", width=9, text=lambda one, _: shown.seconds(one.billed_ms), right=True, spare=5),
        Column(name="held", width=9, text=lambda one, _: shown.qu(one.held_qu), right=True, spare=3),
        Column(name="paid + fee", width=10, text=lambda one, _: shown.qu(one.paid_qu + one.fee_qu), right=True),
        Column(name="returned", width=9, text=lambda one, _: shown.qu(one.returned_qu), right=True, spare=4),
        Column(name="ends", width=19, text=lambda one, _: shown.moment(one.ends_ms) if one.ends_ms else "", spare=1),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "stop", "Stop"),
        Binding("e", "extend", "Extend"),
        Binding("r", "run", "Run on it"),
    ]

    async def load(self) -> Sequence[tuple[str, RentalView]]:
        found = await self.qubix.client.rentals(limit=LIMIT)
        return [(one.rental_id, one) for one in found.rentals]

    def chosen(self, key: str) -> None:
        one = self.item(key)
        if one is not None:
            self.app.push_screen(SheetWindow(pairs(_all(one), title=one.kind.titled(one.model))))

    def _open(self) -> RentalView | None:
        one = self.grid.row
        if one is not None and one.state is RentalState.ENDED:
            self.qubix.tell(BadUsage("state", "this rental is over", "Rent another device on the Market screen (1)."))
            return None
        return one

    def _came(self, view: RentalView) -> None:
        self.qubix.say(f"The rental is {view.state}, {view.seconds // 60:,} minutes agreed. {view.reason_text}".strip())
        self.action_again()

    def action_stop(self) -> None:
        one = self._open()
        if one is None:
            return

        def answered(agreed: bool | None) -> None:
            if agreed:
                self.act(AsyncRental(self.qubix.client, one).stop(), self._came, doing="stopping the rental")

        text = "The answered time is paid, the rest returns at once, and its jobs stop."
        self.app.push_screen(Question(f"Stop renting {one.kind.titled(one.model)}?", text), answered)

    def action_extend(self) -> None:
        one = self._open()
        if one is None:
            return

        def check(values: Values) -> None:
            terms(values)

        def filled(values: Values | None) -> None:
            if values is not None:
                self._extend(one, *terms(values))

        fields = (
            Field(name="minutes", label="How many minutes more", value="60"),
            Field(name="cap", label="At most, in QU (empty: price × time)"),
        )
        text = f"At the same {shown.qu(one.rate_qu_per_h)} QU an hour."
        self.app.push_screen(Form("More time", fields, text=text, check=check), filled)

    def _extend(self, one: RentalView, seconds: int, cap_qu: int | None) -> None:
        def answered(agreed: bool | None) -> None:
            if agreed:
                work = AsyncRental(self.qubix.client, one).extend(seconds, cap_qu=cap_qu)
                self.act(work, self._came, doing="extending the rental")

        most = most_qu(one.rate_qu_per_h, seconds, cap_qu)
        self.app.push_screen(
            Question("Extend it?", f"{seconds // 60:,} minutes for at most {most:,} QU more."), answered
        )

    async def action_run(self) -> None:
        one = self._open()
        if one is None:
            return
        await self.qubix.action_go("run")
        page = self.app.screen
        if isinstance(page, RunPage):
            page.prefill(rental=one.rental_id)


def _all(one: RentalView) -> list[tuple[str, str]]:
    return [
        ("rental", one.rental_id),
        ("state", marks.RENTAL[one.state]),
        ("why", one.reason_text),
        ("detail", one.detail),
        ("provider", one.provider),
        ("device", one.device_id),
        ("back ends", ", ".join(one.backends)),
        ("price", f"{shown.qu(one.rate_qu_per_h)} QU an hour"),
        ("agreed", f"{one.seconds:,} s"),
        ("billed", f"{shown.seconds(one.billed_ms)} for {shown.qu(one.owed_qu)} QU"),
        (
            "hold",
            f"{shown.qu(one.hold_qu)} QU: {shown.qu(one.held_qu)} held, {shown.qu(one.paid_qu)} paid,"
            f" {shown.qu(one.fee_qu)} fee, {shown.qu(one.returned_qu)} returned",
        ),
        ("began", shown.moment(one.started_ms) if one.started_ms else "it has not answered yet"),
        ("answered last", shown.moment(one.answered_ms) if one.answered_ms else ""),
        ("ends", shown.moment(one.ends_ms) if one.ends_ms else ""),
        ("ended", shown.moment(one.ended_ms) if one.ended_ms else ""),
    ]
