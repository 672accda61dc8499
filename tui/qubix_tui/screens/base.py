# SPDX-License-Identifier: Apache-2.0
"""What every screen has: the places above, the status and the keys below, and a tick a few times a second."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import Screen
from textual.widgets import Footer

from qubix_tui.widgets.frame import Places, Status

if TYPE_CHECKING:
    from qubix_tui.app import QubixApp

T = TypeVar("T")


class Page(Screen[None]):
    """`place` is the mode that it belongs to. Subclasses give `body`, and `tick` what is to be drawn anew."""

    BINDINGS: ClassVar[list[BindingType]] = []
    place: ClassVar[str] = ""
    mounted = False

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        if cls.body is Page.body:
            raise TypeError(f"{cls.__name__} is a page without a `body`")

    @property
    def qubix(self) -> "QubixApp":
        from qubix_tui.app import QubixApp

        assert isinstance(self.app, QubixApp)
        return self.app

    def compose(self) -> ComposeResult:
        yield Places(self.place)
        yield from self.body()
        with Vertical(id="below"):
            yield Status()
            yield Footer(compact=True, show_command_palette=False)

    def body(self) -> ComposeResult:
        """What it is made of. Every page has one of its own."""
        return ()

    def tick(self) -> None:
        """A few times a second, while it is in sight."""

    def words(self) -> str:
        """What the status line says in the middle."""
        return ""

    @property
    def ready(self) -> bool:
        """Whether what it is made of is there: not before it is mounted, nor while it is taken down."""
        return self.mounted and bool(self.query(Status))

    def on_mount(self) -> None:
        self.mounted = True

    async def on_unmount(self) -> None:
        self.mounted = False

    def on_screen_resume(self) -> None:
        self.qubix.tick()

    def act(self, work: Awaitable[T], then: Callable[[T], None], *, doing: str) -> None:
        """Waits beside the screen; an error is told with its next step."""
        self.qubix.act(work, then, doing=doing)
