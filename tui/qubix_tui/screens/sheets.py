# SPDX-License-Identifier: Apache-2.0
"""Something shown in full: as a page that scrolls, or in a window above one."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from qubix_tui.screens.base import Page
from qubix_tui.widgets.pairs import Sheet


class SheetPage(Page):
    def body(self) -> ComposeResult:
        with VerticalScroll(id="sheet-scroll"):
            yield Sheet(id="sheet", markup=False)

    def on_mount(self) -> None:
        self.scroller.focus()

    @property
    def sheet(self) -> Sheet:
        return self.query_one("#sheet", Sheet)

    @property
    def scroller(self) -> VerticalScroll:
        return self.query_one("#sheet-scroll", VerticalScroll)


class SheetWindow(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q", "dismiss", "Back")]

    def __init__(self, *parts: Text) -> None:
        super().__init__()
        self._parts = parts

    def compose(self) -> ComposeResult:
        with Vertical(classes="window"):
            with VerticalScroll(classes="whole"):
                yield Static(Text("\n").join(self._parts))
            yield Static(Text("Esc back", "reverse"))

    def on_mount(self) -> None:
        self.query_one(".whole").focus()
