# SPDX-License-Identifier: Apache-2.0
"""Small windows: a question, and a form of a few fields. Escape leaves both without doing anything."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from qubix.errors import BadUsage
from qubix_tui.told import told

Values = dict[str, str]


class Question(ModalScreen[bool]):
    """`y` agrees; anything that leaves it does not."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        with Vertical(classes="window"):
            yield Static(Text(self._title, "bold"))
            with VerticalScroll(classes="words"):
                yield Static(Text(self._text))
            yield Static(Text("y yes   n no (Esc)", "reverse"))

    def action_answer(self, agreed: bool) -> None:
        self.dismiss(agreed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One line to fill in."""

    name: str
    label: str
    value: str = ""
    hint: str = ""
    secret: bool = False


class Form(ModalScreen[Values | None]):
    """`check` raises `BadUsage` for values that cannot be used; its words are shown and the form stays."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave"),
        Binding("ctrl+s", "send", "Go on"),
    ]

    def __init__(
        self, title: str, fields: Sequence[Field], *, text: str = "", check: Callable[[Values], None] | None = None
    ) -> None:
        super().__init__()
        self._title, self._fields, self._text, self._check = title, fields, text, check

    def compose(self) -> ComposeResult:
        with Vertical(classes="window"):
            yield Static(Text(self._title, "bold"))
            if self._text:
                yield Static(Text(self._text), classes="words")
            with VerticalScroll(classes="fields"):
                for one in self._fields:
                    yield Static(Text(one.label), classes="label")
                    yield Input(
                        one.value,
                        placeholder=one.hint,
                        password=one.secret,
                        id=f"field-{one.name}",
                        compact=True,
                        select_on_focus=False,
                    )
            yield Static("", id="problem", markup=False)
            yield Static(Text("Enter next, last one goes on   Ctrl+S go on   Esc leave", "reverse"))

    def on_mount(self) -> None:
        self.query(Input).first().focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        names = [f"field-{one.name}" for one in self._fields]
        at = names.index(event.input.id or names[-1])
        if at + 1 < len(names):
            self.query_one(f"#{names[at + 1]}", Input).focus()
        else:
            self.action_send()

    def action_send(self) -> None:
        values = {one.name: self.query_one(f"#field-{one.name}", Input).value.strip() for one in self._fields}
        try:
            if self._check is not None:
                self._check(values)
        except BadUsage as problem:
            self.query_one("#problem", Static).update(f"✗ {told(problem).line()}")
            known = {one.name for one in self._fields}
            if problem.field in known:
                self.query_one(f"#field-{problem.field}", Input).focus()
            return
        self.dismiss(values)

    def action_leave(self) -> None:
        self.dismiss(None)


def whole(values: Values, name: str, *, low: int, high: int, what: str) -> int:
    """The number in a field. Raises `BadUsage`."""
    text = values[name].replace(",", "").replace("_", "").replace(" ", "")
    if not text.isascii() or not text.isdigit():
        raise BadUsage(name, f"{what}: {values[name][:40]!r} is no whole number", f"Give {low:,} to {high:,}.")
    if not low <= int(text) <= high:
        raise BadUsage(name, f"{what}: {int(text):,} is out of bounds", f"Give {low:,} to {high:,}.")
    return int(text)
