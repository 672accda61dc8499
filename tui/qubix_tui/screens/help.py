# SPDX-License-Identifier: Apache-2.0
"""What each key does, and how to begin."""

from qubix_protocol.query import FIELDS
from qubix_tui.screens.sheets import SheetPage
from qubix_tui.widgets.frame import PLACES
from qubix_tui.widgets.pairs import pairs, section

_EVERYWHERE = (
    ("Ctrl+P", "every action by name"),
    ("↑ ↓ PgUp PgDn", "move (j and k, too)"),
    ("Enter", "details"),
    ("Esc", "back"),
    ("Tab", "the next field"),
    ("q, Ctrl+Q", "leave; jobs and rentals go on"),
)
_MARKET = (
    ("/", "query; Esc goes back to the list, again clears it"),
    ("s, S, o", "sort by the next column, reverse, sort by what you type"),
    ("n, r", "rent the device under the cursor, run a job there"),
    ("h", "in details: more hours of history"),
)
_RUN = (
    ("Esc", "to the kernels; ↑ ↓ choose one, Enter goes to its fields"),
    ("F5", "forecast: an array may be a form, such as float32[1024, 1024]"),
    ("Ctrl+S", "forecast, then the question, then the order"),
    ("w v c a d", "in a job: write the result, check the receipt, cancel, accept, dispute"),
    ("x e r", "in rentals: stop, extend, run a job on it"),
)
_MONEY = (
    ("b p", "provider: by day, week or month; how to set price and maintenance; Tab: devices or work"),
    ("t", "wallet: movements, deposits, withdrawals"),
    ("d w a c", "wallet: deposit, withdraw, addresses, cancel the withdrawal under the cursor"),
    ("l o", "wallet: log in with the wallet on this machine, log out"),
    ("a e x", "disputes: answer, say more, take back"),
    ("p u", "mesh: all peers; listen again"),
)
_QUERY = (
    ("gpu_ram>=24 price<90000", "all must hold; or, not and ( ) as usual"),
    ("region in [EU, US]", "one of a list; price=500..900 is a range"),
    ("rtx", "text in model, region, provider or driver"),
    ("temperature=unknown", "what is not told satisfies nothing else"),
    ("fields", ", ".join(FIELDS)),
)
_MARKS = (
    ("●", "live; available"),
    ("◍ ◌ ○", "reconnecting, connecting, offline: the last data stays, marked"),
    ("◐ ◆ ▽", "busy, rented, draining"),
    ("!", "a reading older than a minute: do not count on it"),
    ("?", "a location that is the provider's word alone"),
    ("–", "not known"),
)
_BEGIN = (
    "In another terminal: `qubix up` starts a market on this machine; QUBIX_COORDINATOR_URL names another one.",
    "`qubix wallet create`, `qubix wallet login` and `qubix wallet deposit 50000 --pay` put QU into the market.",
)


class HelpPage(SheetPage):
    place = "help"

    def on_mount(self) -> None:
        self.sheet.put(
            pairs([(key, title) for key, title, _ in PLACES], title="Screens"),
            pairs(_EVERYWHERE, title="Everywhere"),
            pairs(_MARKET, title="Market"),
            pairs(_RUN, title="Run, jobs, rentals"),
            pairs(_MONEY, title="Provider, wallet, disputes, mesh"),
            pairs(_QUERY, title="The query line"),
            pairs(_MARKS, title="Marks"),
            section("To begin", _BEGIN),
        )
