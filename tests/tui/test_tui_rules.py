# SPDX-License-Identifier: Apache-2.0
"""The pure parts: what is kept of the feed, what is shown of it and in which order, pictures, errors, settings."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import segno
from hypothesis import given
from hypothesis import strategies as st

from qubix import errors
from qubix.errors import BadUsage
from qubix_protocol.messages import Sample
from qubix_protocol.query import QueryError, ordered
from qubix_tui import columns, drawn
from qubix_tui.book import CHANGES_KEPT, Book, Entry
from qubix_tui.columns import Column, fit
from qubix_tui.link import Link, Standing, ago
from qubix_tui.screens.base import Page
from qubix_tui.screens.lists import ListPage
from qubix_tui.screens.renting import most_qu
from qubix_tui.search import ORDERS, pointed, query, reversed_first
from qubix_tui.settings import from_mapping
from qubix_tui.sorting import Shown
from qubix_tui.told import told
from tests.tui.world import MARKET, gpu

# Screens -------------------------------------------------------------------------------------------------------------


def test_a_page_without_a_body_and_a_list_without_a_load_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="Bare is a page without a `body`"):
        type("Bare", (Page,), {})
    with pytest.raises(TypeError, match="Empty is a list without a `load`"):
        type("Empty", (ListPage,), {})


# The book and what is shown of it ------------------------------------------------------------------------------------

NAMES = tuple(f"n{number}" for number in range(6))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(NAMES), st.integers(1, 4)),
        st.tuples(st.just("gone"), st.sampled_from(NAMES), st.just(0)),
        st.tuples(st.just("snapshot"), st.sampled_from(NAMES), st.integers(1, 4)),
        st.tuples(st.just("look"), st.just(""), st.just(0)),
        st.tuples(st.just("sort"), st.just(""), st.integers(0, len(ORDERS) - 1)),
    ),
    max_size=40,
)


@given(STEPS)
def test_what_is_shown_is_what_sorting_everything_anew_gives(steps: list[tuple[str, str, int]]) -> None:
    """However changes, looks and other orders follow each other; and what changed is said to have."""
    book = Book()
    shown = Shown(book)
    shown.choose(lambda one: one.rate_qu_per_h != 3)
    seen: dict[str, int] = {}
    for what, name, value in [*steps, ("look", "", 0)]:
        if what == "put":
            book.put(gpu(name, value), 0.0)
        elif what == "gone":
            book.gone(gpu(name, 1).listing_id)
        elif what == "snapshot":
            book.snapshot([gpu(name, value), gpu("always", 2)], 0.0)
        elif what == "sort":
            shown.sort(ORDERS[value] if value % 2 else reversed_first(ORDERS[value]))
        else:
            changed = shown.refresh()
            now = {key: book.entries[key].listing.rate_qu_per_h for key in shown.keys}
            if changed is not None:
                assert list(seen) == list(now)
                assert {key for key in now if now[key] != seen[key]} <= changed
            seen = now
    kept = [entry.listing for entry in book.entries.values() if entry.listing.rate_qu_per_h != 3]
    assert shown.keys == [one.listing_id for one in ordered(kept, shown.order)]


def test_a_wrong_query_is_pointed_at() -> None:
    line = "price<500 gpu_rma>=8"
    with pytest.raises(QueryError) as caught:
        query(line)
    mark, words = pointed(line, caught.value).splitlines()
    assert mark == " " * 10 + "^" * len("gpu_rma")
    assert "gpu_ram" in words


def test_changes_are_remembered_within_bounds() -> None:
    book = Book()
    book.put(MARKET[0], 0.0)
    first = book.version
    assert book.since(first) == set()
    book.put(MARKET[1], 0.0)
    assert book.since(first) == {MARKET[1].listing_id}
    for _ in range(CHANGES_KEPT):
        book.put(MARKET[2], 0.0)
    assert book.since(first) is None, "more than is remembered: look at all"


def test_readings_grow_old_and_are_marked() -> None:
    """P9: the age goes on while nothing is told."""
    entry = Entry(gpu("a", 1, metrics_age_ms=20_000), heard_s=100.0)
    assert entry.age_s(130.0) == 50.0
    assert not entry.stale(130.0)
    assert entry.stale(141.0)
    assert "!" in columns.use(entry, 141.0)
    assert Entry(MARKET[3], 0.0).age_s(9.0) is None


def test_a_reading_counts_once_however_often_its_listing_is_told() -> None:
    entry = Entry(gpu("a", 1), 0.0)
    entry.put(gpu("a", 2), 1.0)
    entry.put(gpu("a", 2, metrics=Sample(at_ms=2, utilisation_pct=80)), 2.0)
    assert list(entry.use) == [37, 80]


# Pictures and columns ------------------------------------------------------------------------------------------------


def test_sparklines_and_charts_show_gaps_as_gaps() -> None:
    assert drawn.spark([0, 50, None, 100], 6) == "  ▁▅ █"
    assert drawn.spark(list(range(20)), 3, high=20) == "▇██"
    lines = drawn.chart([0, None, 100], 8, 2, unit="%")
    assert lines == ["100%┤  █", "  0%┤▁ █"]
    assert drawn.bucketed([1, 3, None, None, 5, 7], 3) == [2, None, 6]


def test_a_bar_is_whole_at_one_alone() -> None:
    assert drawn.bar(0.999, 12) == "[█████████·]"
    assert drawn.bar(1.0, 12) == "[██████████]"


def test_a_code_is_the_one_that_segno_makes() -> None:
    """Read back from the half blocks, module by module."""
    words = "A" * 60
    upper, lower = {" ": 1, "▄": 1, "▀": 0, "█": 0}, {" ": 1, "▀": 1, "▄": 0, "█": 0}
    found = [[table[letter] for letter in line] for line in drawn.qr(words) for table in (upper, lower)]
    wanted = [[int(module) for module in row] for row in segno.make(words, micro=False).matrix_iter(border=drawn.QUIET)]
    assert found[: len(wanted)] == wanted


def test_columns_give_way_in_their_order_and_the_rest_is_shared() -> None:
    def column(name: str, **more: object) -> Column[int]:
        return Column(name=name, width=10, text=lambda one, _: str(one), **more)  # type: ignore[arg-type]

    all_of_them = [column("a", grow=True), column("b", spare=2), column("c", spare=1), column("d")]
    assert [(one.name, size) for one, size in fit(all_of_them, 50)] == [("a", 17), ("b", 10), ("c", 10), ("d", 10)]
    assert [one.name for one, _ in fit(all_of_them, 35)] == ["a", "b", "d"]
    assert [one.name for one, _ in fit(all_of_them, 5)] == ["a", "d"], "what cannot be spared stays"


def test_every_availability_has_an_icon_and_its_word() -> None:
    assert [text.split()[1] for text in columns.AVAILABILITY.values()] == [str(one) for one in columns.AVAILABILITY]
    assert len({text[0] for text in columns.AVAILABILITY.values()}) == len(columns.AVAILABILITY)


# The connection, errors, money, settings -----------------------------------------------------------------------------


def test_a_connection_is_reconnecting_before_it_is_offline() -> None:
    link = Link()
    link.lost("nobody")
    assert link.standing is Standing.OFFLINE, "there is nothing of before"
    link.heard(10.0)
    assert link.text(12.0) == "● live · heard 2 s ago"
    link.lost("gone")
    assert link.text(75.0) == "◍ reconnecting · data 1 min old"
    link.lost("still gone")
    assert link.text(75.0) == "○ offline · data 1 min old"


def test_ages_are_told_in_their_largest_unit() -> None:
    assert [ago(one) for one in (-1, 59, 61, 7_300, 200_000)] == ["0 s", "59 s", "1 min", "2 h", "2 d"]


def _leaves(kind: type[errors.QubixError]) -> list[type[errors.QubixError]]:
    return [one for below in kind.__subclasses__() for one in (below, *_leaves(below))]


@pytest.mark.parametrize("kind", sorted(set(_leaves(errors.QubixError)), key=lambda one: one.__name__))
def test_every_error_of_the_sdk_has_a_next_step(kind: type[errors.QubixError]) -> None:
    if issubclass(kind, errors.ApiError):
        error: errors.QubixError = kind("it is so", status=400)
    elif issubclass(kind, errors.BadUsage):
        error = kind("cap", "it is so", "do that")
    elif issubclass(kind, errors.CannotReach):
        error = kind("http://x", "it is so")
    elif issubclass(kind, errors.JobEnded):
        error = kind("it is so", job_id="", reason="", detail="")
    elif issubclass(kind, errors.RentalEnded):
        error = kind("it is so", rental_id="", reason="", detail="")
    else:
        error = kind("it is so")
    found = told(error)
    assert "it is so" in found.problem
    assert found.remedy
    assert not found.unforeseen


def test_what_nobody_foresaw_is_told_without_a_traceback() -> None:
    found = told(KeyError("x"))
    assert found.unforeseen
    assert "tui.log" in found.remedy
    assert told(FileNotFoundError(2, "No such file", "a.npy")).problem == "a.npy: No such file"


def test_what_a_rental_holds_is_rounded_up_and_capped() -> None:
    assert most_qu(1, 1, None) == 1
    assert most_qu(3_600, 60, None) == 60
    assert most_qu(3_600, 60, 10) == 10
    assert most_qu(0, 60, None) == 0


def test_settings_are_those_of_the_client_with_its_own_on_top(tmp_path: Path) -> None:
    file = tmp_path / "qubix.toml"
    file.write_text(
        '[client]\ncoordinator_url = "http://one:1"\ntries_max = 3\n'
        '[tui]\nbootstrap = ["/dns/x/tcp/1"]\ntries_max = 4\n'
    )
    found = from_mapping({"QUBIX_CONFIG": str(file), "QUBIX_COORDINATOR_URL": "http://two:2"})
    assert (found.url, found.tries_max, found.bootstrap) == ("http://two:2", 4, ("/dns/x/tcp/1",))
    with pytest.raises(BadUsage, match="QUBIX_COORDINATOR_KEY"):
        from_mapping({"QUBIX_COORDINATOR_KEY": "nonsense"})


def test_it_needs_a_terminal_and_says_what_else_there_is(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "qubix_tui"]
    env = {"QUBIX_DATA_DIR": str(tmp_path / "data"), "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr
    assert "qubix offers search --json" in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_listing_that_was_told_before_keeps_its_history_over_a_snapshot() -> None:
    book = Book()
    book.put(MARKET[0], 0.0)
    again = msgspec.structs.replace(MARKET[0], metrics=Sample(at_ms=2, utilisation_pct=99))
    book.snapshot([again], 1.0)
    assert list(book.entries[again.listing_id].use) == [37, 99]
