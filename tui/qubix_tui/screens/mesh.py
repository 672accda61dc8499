# SPDX-License-Identifier: Apache-2.0
"""The mesh: offers straight from the nodes that make them, and the peers they come from. Needs no coordinator."""

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from qubix.cli import shown
from qubix.errors import QubixError
from qubix_tui import columns
from qubix_tui.book import Entry
from qubix_tui.columns import UNKNOWN, Column
from qubix_tui.link import ago
from qubix_tui.mesh import knowing
from qubix_tui.mesh.heard import Known, MeshOffer, Peer, offer_of
from qubix_tui.screens.base import Page
from qubix_tui.screens.sheets import SheetWindow
from qubix_tui.told import told
from qubix_tui.widgets.grid import Grid
from qubix_tui.widgets.pairs import pairs, section

_PEERS: Final = 3
_NONE_YET: Final = "No offers were heard yet. Nodes say theirs every 30 seconds."


def _entry(one: MeshOffer) -> Entry:
    return Entry(one.listing, one.heard_s)


OFFERS: Final[tuple[Column[MeshOffer], ...]] = (
    Column(name="GPU", width=15, text=lambda one, now: columns.model(_entry(one), now), grow=True),
    Column(name="memory", width=9, text=lambda one, _: shown.memory(one.listing.memory_bytes), right=True, spare=3),
    Column(name="QU/h", width=9, text=lambda one, _: shown.qu(one.listing.rate_qu_per_h), right=True),
    Column(name="location", width=9, text=lambda one, now: columns.location(_entry(one), now), spare=4),
    Column(name="Mbit/s", width=11, text=lambda one, now: columns.network(_entry(one), now), spare=0),
    Column(name="driver / CUDA", width=17, text=lambda one, _: shown.driver(one.listing) or UNKNOWN, spare=1),
    Column(name="back ends", width=9, text=lambda one, now: columns.backends(_entry(one), now), spare=2),
    Column(name="availability", width=12, text=lambda one, now: columns.availability(_entry(one), now)),
    Column(name="use", width=4, text=lambda one, _: _use(one), right=True),
    Column(name="heard", width=13, text=lambda one, now: _heard(one, now)),
    Column(name="provider", width=11, text=lambda one, _: shown.peer(one.listing.provider)),
)


def _use(one: MeshOffer) -> str:
    found = one.listing.metrics
    return UNKNOWN if found is None or found.utilisation_pct is None else f"{found.utilisation_pct:.0f}%"


def _heard(one: MeshOffer, now_s: float) -> str:
    return f"{'! expired ' if one.stale else ''}{ago(now_s - one.heard_s)} ago"[:13]


class MeshPage(Page):
    place = "mesh"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "peers", "Peers"),
        Binding("u", "again", "Listen again"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._known: Known | None = None
        self._error: QubixError | None = None
        self._offers: dict[str, MeshOffer] = {}
        self._drawn: tuple[object, ...] = ()

    def body(self) -> ComposeResult:
        yield Static("", id="head", classes="-there", markup=False)
        yield Grid[MeshOffer](OFFERS, self._offers_get, self.qubix.clock, id="list", dim=lambda one, _: one.stale)

    def _offers_get(self, key: str) -> MeshOffer | None:
        return self._offers.get(key)

    def on_mount(self) -> None:
        self.query_one("#list").focus()
        if self.qubix.mesh is None:
            self.action_again()

    def action_again(self) -> None:
        """Stops listening, asks where the mesh is, and listens anew."""
        self.qubix.tasks.start(self._listen(), "mesh")

    async def _listen(self) -> None:
        self._error = None
        try:
            found = await knowing.known(self.qubix.client, self.qubix.settings, self.qubix.folder)
        except QubixError as error:
            self._error = error
        else:
            self._known = found
            await self.qubix.listen(found)

    def tick(self) -> None:
        mesh = self.qubix.mesh
        version = -1 if mesh is None else mesh.version
        state = (mesh, version, self._error, int(self.qubix.clock()), self.size.width)
        if state == self._drawn:
            return
        self._drawn = state
        heard = () if mesh is None else mesh.offers()
        self._offers = {one.listing.listing_id: one for one in map(offer_of, heard)}
        grid = self.query_one("#list", Grid)
        grid.show(list(self._offers))
        grid.empty = "" if self._offers else self._empty()
        self.query_one("#head", Static).update(pairs(self._standing()))

    def _problem(self) -> QubixError | None:
        return self._error or (None if self.qubix.mesh is None else self.qubix.mesh.error)

    def _empty(self) -> str:
        problem = self._problem()
        if problem is not None:
            return f"{told(problem).line()}\nu tries again."
        if self._peers():
            return _NONE_YET
        return (
            "Looking for peers …"
            if self._known and self._known.bootstrap
            else ("Nobody to dial is known: set QUBIX_BOOTSTRAP, or press u once the coordinator is up.")
        )

    def _peers(self) -> Sequence[Peer]:
        return () if self.qubix.mesh is None else self.qubix.mesh.peers()

    def _standing(self) -> list[tuple[str, str]]:
        known = self._known
        if known is None:
            return [("mesh", "asking where it is …")]
        problem = self._problem()
        peers = sorted(self._peers(), key=lambda one: (not one.connected, one.peer_id))
        return [
            (
                "listening",
                f"{known.network}, {', '.join(known.regions)}; believed: whom {known.coordinator_key[:16]}… certified",
            ),
            ("peers", f"{sum(one.connected for one in peers)} connected of {len(peers)} known (p: all)"),
            *(("", _peer(one, shown.peer(one.peer_id))) for one in peers[:_PEERS]),
            ("problem", "" if problem is None else told(problem).line()),
        ]

    def words(self) -> str:
        mesh = self.qubix.mesh
        standing = "◌ not listening" if mesh is None or not mesh.running else "● listening"
        return f"mesh: {standing} · {len(self._offers):,} offers"

    def action_peers(self) -> None:
        lines = [f"{_peer(one, one.peer_id)}\n  {one.address}" for one in self._peers()] or ["none so far"]
        self.app.push_screen(SheetWindow(section("Peers", lines)))

    def on_grid_chosen(self, event: "Grid.Chosen") -> None:
        one = self._offers.get(event.key)
        if one is not None:
            self.app.push_screen(SheetWindow(pairs(_all(one, self.qubix.clock()), title=one.listing.model)))


def _peer(one: Peer, name: str) -> str:
    mark = "● connected" if one.connected else "○ not connected"
    return f"{mark:<15} {name}{'  relay' if one.relay else ''}"


def _all(one: MeshOffer, now_s: float) -> list[tuple[str, Any]]:
    listing, entry = one.listing, _entry(one)
    return [
        ("provider", listing.provider),
        ("certified", "✓ by the coordinator" if one.certified else "✗ no"),
        ("heard", _heard(one, now_s)),
        ("price", f"{shown.qu(listing.rate_qu_per_h)} QU an hour"),
        ("availability", columns.availability(entry, now_s)),
        ("location", columns.location(entry, now_s)),
        ("device", listing.device_id),
        ("memory", shown.memory(listing.memory_bytes)),
        ("driver / CUDA", shown.driver(listing)),
        ("back ends", ", ".join(listing.backends)),
        ("jobs run in", shown.isolation(listing)),
        ("not told here", "checks, scores and reliability: the coordinator alone knows them"),
    ]
