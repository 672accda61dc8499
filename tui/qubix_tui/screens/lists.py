# SPDX-License-Identifier: Apache-2.0
"""A screen that is a list of the account's: asked for when it comes into sight, and every few seconds while it is."""

from collections.abc import Sequence
from typing import Any, ClassVar, Final, Generic, TypeVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from qubix.errors import QubixError
from qubix_tui.columns import Column
from qubix_tui.screens.base import Page
from qubix_tui.told import told
from qubix_tui.widgets.grid import Grid

T = TypeVar("T")
AGAIN_S: Final = 3.0
LIMIT: Final = 50


class ListPage(Page, Generic[T]):
    """Subclasses say what it holds (`load`), its `columns`, and what stands there while there is none.

    `old` items stay when asking fails, and the status line says so.
    """

    columns: ClassVar[Sequence[Column[Any]]] = ()
    none_yet: ClassVar[str] = ""
    BINDINGS: ClassVar[list[BindingType]] = [Binding("u", "again", "Update", show=False)]

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        if cls.load is ListPage.load:
            raise TypeError(f"{cls.__name__} is a list without a `load`")

    def __init__(self) -> None:
        super().__init__()
        self._items: dict[str, T] | None = None
        self._error: QubixError | None = None
        self._asking = False
        self._asked_s = float("-inf")
        self._head = ""

    async def load(self) -> Sequence[tuple[str, T]]:
        """Each with its key, in their order. Raises `QubixError`. Every list has one of its own."""
        return ()

    def chosen(self, key: str) -> None:
        """Enter on a row."""

    def head(self) -> Text:
        """A few lines above the list; none when empty."""
        return Text("")

    def body(self) -> ComposeResult:
        yield Static("", id="head", markup=False)
        yield Grid[T](
            self.columns, self.item, self.qubix.clock, id="list", dim=lambda one, now: self._error is not None
        )

    def on_mount(self) -> None:
        self.grid.focus()

    @property
    def grid(self) -> "Grid[T]":
        return self.query_one("#list", Grid)

    def item(self, key: str) -> T | None:
        return (self._items or {}).get(key)

    @property
    def items(self) -> dict[str, T]:
        return self._items or {}

    def tick(self) -> None:
        if not self._asking and self.qubix.clock() - self._asked_s >= AGAIN_S:
            self.action_again()
        self.grid.empty = "" if self._items else self._empty()

    def _empty(self) -> str:
        if self._error is not None:
            return told(self._error).line()
        return "Asking the market …" if self._items is None else self.none_yet

    def words(self) -> str:
        if self._error is not None and self._items:
            return f"not updated: {told(self._error).line()}"
        return "" if self._items is None else f"{len(self._items):,} shown"

    def action_again(self) -> None:
        """Now; once at a time."""
        self._asking, self._asked_s = True, self.qubix.clock()
        self.qubix.tasks.start(self._ask(), f"{self.place}: update")

    async def _ask(self) -> None:
        try:
            found = dict(await self.load())
        except QubixError as error:
            self._error = error
            if self.ready:
                self._put_head()
        else:
            self._error = None
            self._put(found)
        finally:
            self._asking = False

    def _put(self, found: dict[str, T]) -> None:
        if not self.ready:
            return
        news, self._items = found != self._items, found
        self._put_head()
        if news:
            self.grid.show(list(found))
        self.qubix.tick()

    def _put_head(self) -> None:
        """Drawn only when it says something else."""
        text = self.head()
        if text.plain != self._head:
            self._head = text.plain
            head = self.query_one("#head", Static)
            head.update(text)
            head.set_class(bool(text.plain), "-there")

    def on_grid_chosen(self, event: "Grid.Chosen") -> None:
        self.chosen(event.key)
