# SPDX-License-Identifier: Apache-2.0
"""What stands above and below every screen: where one is, how old the data is, what is waited for."""

from typing import Final

from rich.text import Text
from textual.widget import Widget
from textual.widgets import Static

PLACES: Final = (
    ("1", "Market", "market"),
    ("2", "Run", "run"),
    ("3", "Jobs", "jobs"),
    ("4", "Rentals", "rentals"),
    ("5", "Provider", "provider"),
    ("6", "Wallet", "wallet"),
    ("7", "Disputes", "disputes"),
    ("8", "Mesh", "mesh"),
    ("?", "Help", "help"),
)
"""Key, title and mode of each screen."""


class Places(Static):
    """The screens with their keys; where one is stands in brackets, too."""

    def __init__(self, here: str) -> None:
        super().__init__(id="places")
        self._here = here

    def on_mount(self) -> None:
        line = Text(no_wrap=True, overflow="ellipsis")
        for key, title, mode in PLACES:
            here = mode == self._here
            line.append(f"[{key} {title}]" if here else f"{key} {title}", "bold reverse" if here else "")
            line.append(" ")
        self.update(line)


class Status(Widget):
    """One line: the connection with the age of the data at the left, the balance at the right, words between."""

    def __init__(self) -> None:
        super().__init__(id="status")
        self._left, self._middle, self._right = "", "", ""

    def put(self, left: str, middle: str, right: str, *, current: bool) -> None:
        if (left, middle, right) != (self._left, self._middle, self._right):
            self._left, self._middle, self._right = left, middle, right
            self.set_class(not current, "-old")
            self.refresh()

    def render(self) -> Text:
        width = self.size.width
        room = max(0, width - len(self._left) - len(self._right) - 4)
        middle = self._middle if len(self._middle) <= room else f"{self._middle[: max(0, room - 1)]}…"
        line = Text(no_wrap=True, overflow="crop")
        line.append(self._left, "bold")
        line.append(f"  {middle:<{room}}  ")
        line.append(self._right, "bold")
        return line
