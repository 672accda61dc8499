# SPDX-License-Identifier: Apache-2.0
"""A window that shows something in full."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static


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
