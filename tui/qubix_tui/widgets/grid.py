# SPDX-License-Identifier: Apache-2.0
"""A list of any length: only lines in sight are drawn, and only those that changed are drawn anew."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar, Final, Generic, TypeVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from qubix_tui.columns import Column, cell, fit

T = TypeVar("T")
CURSOR: Final = "▶"
_HEAD: Final = 1


class Grid(ScrollView, Generic[T], can_focus=True):
    """Rows by key. `get` gives a row, or None once it is gone; `now` the time that columns are drawn for.

    The cursor stays on its row when the order changes. `empty` is shown in place of rows.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"grid--head", "grid--cursor", "grid--empty", "grid--dim"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "end(0)", "First", show=False),
        Binding("end", "end(1)", "Last", show=False),
        Binding("enter", "choose", "Details"),
    ]
    cursor: reactive[int] = reactive(0, repaint=False)
    empty: reactive[str] = reactive("")

    class Chosen(Message):
        """Enter, or a second click, on a row."""

        def __init__(self, grid: "Grid[Any]", key: str) -> None:
            super().__init__()
            self.grid, self.key = grid, key

        @property
        def control(self) -> "Grid[Any]":
            return self.grid

    def __init__(
        self,
        columns: Sequence[Column[T]],
        get: Callable[[str], T | None],
        now: Callable[[], float],
        *,
        id: str | None = None,  # noqa: A002  textual's own name for it
        dim: Callable[[T, float], bool] | None = None,
    ) -> None:
        super().__init__(id=id)
        self._columns, self._get, self._now, self._dim = columns, get, now, dim
        self._keys: Sequence[str] = ()
        self._at: str | None = None
        self.drawn_rows = 0
        """How many lines of rows were drawn so far, for who measures."""

    @property
    def key(self) -> str | None:
        """That of the row under the cursor."""
        return self._keys[self.cursor] if self.cursor < len(self._keys) else None

    @property
    def row(self) -> T | None:
        return None if self.key is None else self._get(self.key)

    def show(self, keys: Sequence[str]) -> None:
        """Another list, or the same in another order."""
        self._keys = keys
        if self._at is not None and self.key != self._at:
            self.cursor = next((at for at, key in enumerate(keys) if key == self._at), min(self.cursor, len(keys)))
        self.cursor = max(0, min(self.cursor, len(keys) - 1))
        self._at = self.key
        self._resize()
        self.refresh()

    def touch(self, keys: Collection[str]) -> None:
        """Draws these anew, where they are in sight."""
        first = self.scroll_offset.y
        for line in range(min(self._room, len(self._keys) - first)):
            if self._keys[first + line] in keys:
                self.refresh(Region(0, line + _HEAD, self.size.width, 1))

    @property
    def _room(self) -> int:
        return max(0, self.scrollable_content_region.height - _HEAD)

    def _resize(self) -> None:
        self.virtual_size = Size(self.scrollable_content_region.width, len(self._keys) + _HEAD)

    def on_resize(self, event: events.Resize) -> None:
        self._resize()
        self._into_sight()

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        fitted = fit(self._columns, width - len(CURSOR) - 1)
        if y == 0:
            words = " ".join(cell(one.name, size, right=one.right) for one, size in fitted)
            return self._strip(f"{' ' * (len(CURSOR) + 1)}{words}", width, self.get_component_rich_style("grid--head"))
        at = self.scroll_offset.y + y - _HEAD
        if not self._keys:
            return self._strip(self._empty_line(y - _HEAD, width), width, self.get_component_rich_style("grid--empty"))
        row = self._get(self._keys[at]) if at < len(self._keys) else None
        if row is None:
            return self._strip("", width, self.rich_style)
        self.drawn_rows += 1
        now = self._now()
        words = " ".join(cell(one.text(row, now), size, right=one.right) for one, size in fitted)
        mark = CURSOR if at == self.cursor else " "
        name = "grid--cursor" if at == self.cursor else "grid--dim" if self._dim and self._dim(row, now) else ""
        return self._strip(f"{mark} {words}", width, self.get_component_rich_style(name) if name else self.rich_style)

    def _empty_line(self, at: int, width: int) -> str:
        lines = _wrapped(self.empty, max(10, width - 4))
        return f"  {lines[at - 1]}" if 1 <= at <= len(lines) else ""

    def _strip(self, text: str, width: int, style: Style) -> Strip:
        return Strip([Segment(text, style)]).adjust_cell_length(width, style)

    def watch_cursor(self, before: int, after: int) -> None:
        self._at = self.key
        for at in (before, after):
            self.refresh(Region(0, at - self.scroll_offset.y + _HEAD, self.size.width, 1))
        self._into_sight()

    def _into_sight(self) -> None:
        top, room = self.scroll_offset.y, self._room
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, immediate=True, force=True)
        elif room and self.cursor >= top + room:
            self.scroll_to(y=self.cursor - room + 1, animate=False, immediate=True, force=True)

    def action_move(self, by: int) -> None:
        self.cursor = max(0, min(len(self._keys) - 1, self.cursor + by))

    def action_page(self, by: int) -> None:
        self.action_move(by * max(1, self._room))

    def action_end(self, last: int) -> None:
        self.cursor = max(0, len(self._keys) - 1) if last else 0

    def action_choose(self) -> None:
        if self.key is not None:
            self.post_message(self.Chosen(self, self.key))

    def on_click(self, event: events.Click) -> None:
        at = event.y - _HEAD + self.scroll_offset.y
        if event.y >= _HEAD and at < len(self._keys):
            again = at == self.cursor
            self.cursor = at
            if again or event.chain > 1:
                self.action_choose()


def _wrapped(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for part in text.splitlines():
        line = ""
        for word in part.split(" "):
            if line and len(line) + 1 + len(word) > width:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}" if line else word
        lines.append(line)
    return lines
