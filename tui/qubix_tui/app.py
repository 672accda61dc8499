# SPDX-License-Identifier: Apache-2.0
"""The terminal as a whole: its screens, the live feed behind them, and what happens when something goes wrong."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, NoReturn, TypeVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from qubix.async_client import AsyncClient
from qubix.cli import shown
from qubix_tui.book import Book
from qubix_tui.feed import Feed
from qubix_tui.mesh.heard import Known, OpenWatch
from qubix_tui.mesh.knowing import PEERS_FILE
from qubix_tui.mesh.thread import MeshThread, real_watch
from qubix_tui.screens.base import Page
from qubix_tui.screens.disputes import DisputesPage
from qubix_tui.screens.help import HelpPage
from qubix_tui.screens.jobs import JobsPage
from qubix_tui.screens.market import MarketPage
from qubix_tui.screens.mesh import MeshPage
from qubix_tui.screens.provider import ProviderPage
from qubix_tui.screens.rentals import RentalsPage
from qubix_tui.screens.run import RunPage
from qubix_tui.screens.wallet import WalletPage
from qubix_tui.settings import Settings
from qubix_tui.tasks import Tasks
from qubix_tui.told import told
from qubix_tui.widgets.frame import PLACES, Status

T = TypeVar("T")
TICK_S: Final = 0.2
"""Five times a second: what changed in between is drawn once."""
TOLD_S: Final = 10.0
log = logging.getLogger(__name__)


class QubixApp(App[None]):
    """`clock` is monotonic; every age on the screen is by it."""

    CSS_PATH = "style.tcss"
    TITLE = "QUBIX"
    MODES: ClassVar[dict[str, str | Callable[[], Screen[None]]]] = {
        "market": MarketPage,
        "run": RunPage,
        "jobs": JobsPage,
        "rentals": RentalsPage,
        "provider": ProviderPage,
        "wallet": WalletPage,
        "disputes": DisputesPage,
        "mesh": MeshPage,
        "help": HelpPage,
    }
    DEFAULT_MODE = "market"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding("question_mark" if key == "?" else key, f"go('{mode}')", title, show=False)
            for key, title, mode in PLACES
        ),
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True),
        Binding("q", "quit", "Quit"),
        Binding("question_mark", "go('help')", "Help", key_display="?"),
    ]

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        open_watch: OpenWatch | None = None,
    ) -> None:
        super().__init__()
        self.settings: Final = settings
        self.client: Final = AsyncClient(settings=settings)
        self.mesh: MeshThread | None = None
        self._open_watch: Final = open_watch or (lambda known: real_watch(known, self.folder / PEERS_FILE))
        self.clock: Final = clock
        self.book: Final = Book()
        self.feed = Feed(self.client, self.book, self._news, clock=clock)
        self.tasks: Final = Tasks(self._handle_exception)
        self._feeding: asyncio.Task[NoReturn] | None = None
        self._waits: dict[int, str] = {}

    @property
    def folder(self) -> Path:
        """Where the terminal keeps what is its own."""
        return self.settings.tui_dir

    async def on_mount(self) -> None:
        await self.restart_feed()
        self.set_interval(TICK_S, self.tick)

    async def on_unmount(self) -> None:
        await self.tasks.stop()
        await self._stop_mesh()
        await self.client.close()

    async def listen(self, known: Known) -> None:
        """To the mesh, in a thread of its own; what listened before is stopped first."""
        await self._stop_mesh()
        self.mesh = MeshThread(known, self._open_watch)
        self.mesh.start()

    async def _stop_mesh(self) -> None:
        if self.mesh is not None:
            await asyncio.to_thread(self.mesh.stop)
            self.mesh = None

    async def restart_feed(self) -> None:
        """After another account was opened."""
        if self._feeding is not None:
            await self.tasks.stop(self._feeding)
        self.feed.forget()
        self._feeding = self.tasks.start(self.feed.run(), "feed")

    def _news(self) -> None:
        """What was told is drawn with the next tick."""

    def tick(self) -> None:
        """What changed is drawn; nothing, once the screens are gone."""
        page = self.screen_stack[-1] if self.screen_stack else None
        if not isinstance(page, Page) or not page.ready:
            return
        page.tick()
        account = self.feed.account
        money = "not signed in" if self.feed.visiting else ""
        if account is not None:
            money = f"{shown.qu(account.balance_qu)} QU"
        words = next(reversed(self._waits.values()), "") or page.words()
        link = self.feed.link
        page.query_one(Status).put(link.text(self.clock()), words, money, current=link.current)

    def act(self, work: Awaitable[T], then: Callable[[T], None], *, doing: str) -> None:
        """Waits for `work` beside everything else, and says so; its error is told with the next step."""
        name = id(work)
        self._waits[name] = f"{doing} …"

        async def done() -> None:
            try:
                found = await work
            except Exception as error:  # noqa: BLE001  a person is told of every failure, and the screen stays
                self.tell(error)
            else:
                then(found)
            finally:
                self._waits.pop(name, None)
                self.tick()

        self.tasks.start(done(), doing)
        self.tick()

    def tell(self, error: BaseException) -> None:
        """In words with a next step."""
        what = told(error)
        if what.unforeseen:
            log.error("unforeseen", exc_info=error)
        self.notify(what.remedy, title=what.problem, severity="error", timeout=TOLD_S, markup=False)

    def say(self, text: str) -> None:
        self.notify(text, timeout=TOLD_S, markup=False)

    async def action_go(self, mode: str) -> None:
        if self.current_mode != mode:
            await self.switch_mode(mode)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Every screen, and everything that a key does on this one."""
        for key, title, mode in PLACES:
            yield SystemCommand(title, f"Go to {title} (key {key})", partial(self.run_action, f"go('{mode}')"))
        # An action with several keys is one command.
        own: dict[str, Binding] = {}
        for active in screen.active_bindings.values():
            if active.node is screen and active.binding.description:
                own.setdefault(active.binding.action, active.binding)
        for one in own.values():
            told_key = self.get_key_display(one)
            run = partial(self.run_action, one.action, screen)
            yield SystemCommand(one.description, f"On this screen (key {told_key})", run)
        yield SystemCommand("Quit", "Leave the terminal; jobs and rentals go on (key q)", self.action_quit)

    def _handle_exception(self, error: Exception) -> None:
        """A defect ends the terminal with a sentence; the traceback goes to the log file. Tests see it whole."""
        if self.is_headless:
            super()._handle_exception(error)
            return
        log.error("unforeseen", exc_info=error)
        self.exit(return_code=1, message=f"qubix tui: {told(error).line()}")
