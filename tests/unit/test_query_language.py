# SPDX-License-Identifier: Apache-2.0
"""The query line: what it means, how it is written, and where its errors point."""

import contextlib
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubix_protocol import query
from qubix_protocol.api import ListingView
from qubix_protocol.messages import Sample
from qubix_protocol.query import FIELDS, NAMES, Query, QueryError, SortKey, ordered, parse, parse_order
from qubix_protocol.query.fields import SORTABLE, Kind
from qubix_protocol.query.grammar import LENGTH_MAX
from qubix_protocol.query.nodes import DEPTH_MAX, TERMS_MAX
from qubix_protocol.states import Availability, DeviceKind
from tests.support.query_cases import lines, listing, listing_fields, orders, words_of

GIB = 1024**3


def found(line: str, **changes: Any) -> bool:
    return parse(line).matches(listing(**changes))


def attempt(line: str) -> tuple[Query | None, QueryError | None]:
    try:
        return parse(line), None
    except QueryError as error:
        return None, error


# What it means -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "matches", "misses"),
    [
        ("gpu_ram>=8", {"memory_bytes": 8 * 10**9}, {"memory_bytes": 8 * 10**9 - 1}),
        ("gpu_ram>=8GiB", {"memory_bytes": 8 * GIB}, {"memory_bytes": 8 * 10**9}),
        ("gpu_ram>=1.1GiB", {"memory_bytes": 1_181_116_007}, {"memory_bytes": 1_181_116_006}),
        ("gpu_ram=8..24g", {"memory_bytes": 24 * 10**9}, {"memory_bytes": 24 * GIB}),
        ("gpu_ram=8..24GiB", {"memory_bytes": 8 * GIB}, {"memory_bytes": 8 * 10**9}),
        ("gpu_ram!=8..24GiB", {"memory_bytes": 8 * 10**9}, {"memory_bytes": 8 * GIB}),
        ("price in 100..500", {"rate_qu_per_h": 100}, {"rate_qu_per_h": 501}),
        ("price<1QU/s", {"rate_qu_per_h": 3_599}, {"rate_qu_per_h": 3_600}),
        ("price=0.5kQU/h", {"rate_qu_per_h": 500}, {"rate_qu_per_h": 50}),
        ("region in [EU, US]", {"region": "us"}, {"region": "asia"}),
        ("region not in [EU, US]", {"region": "asia"}, {"region": "Eu"}),
        ("geolocation=de", {"country": "DE"}, {"country": "FR"}),
        ("driver_version>=580.9", {"driver": "580.10.1"}, {"driver": "580.8.99"}),
        ("cuda_vers>12.9", {"cuda": "12.10"}, {"cuda": "12.9"}),
        ("cuda<=13", {"cuda": "13.0"}, {"cuda": "13.1"}),
        ("compute_cap=8.9", {"compute_capability": "8.9"}, {"compute_capability": "8.6"}),
        ("gpu_name=RTX_4090", {"model": "NVIDIA GeForce RTX 4090"}, {"model": "NVIDIA GeForce RTX 4090 D"}),
        ('gpu_name="geforce rtx 4090"', {"model": "RTX 4090"}, {"model": "RTX 409"}),
        ("backend=cuda", {"backends": ("cpu", "cuda")}, {"backends": ("cpu",)}),
        ("backend!=cuda", {"backends": ("cpu",)}, {"backends": ("cpu", "cuda")}),
        ("backend in [wgpu, cuda]", {"backends": ("cpu", "wgpu")}, {"backends": ("cpu",)}),
        ("verified", {"verified": True}, {"verified": False}),
        ("not verified", {"verified": False}, {"verified": True}),
        ("rentable", {"availability": Availability.AVAILABLE}, {"availability": Availability.BUSY}),
        ("availability in [busy, draining]", {"availability": Availability.BUSY}, {}),
        ("kind=cpu", {"kind": DeviceKind.CPU}, {"kind": DeviceKind.CUDA}),
        ("reliability>98%", {"reliability": 0.981}, {"reliability": 0.98}),
        ("score>=1.5TFLOPS", {"score": 1_500.0}, {"score": 1_499.9}),
        ("score_per_qu>=3", {"score": 1_500.0}, {"score": 1_499.0}),
        ("inet_down>=100", {"inet_down_bytes_per_s": 12_500_000}, {"inet_down_bytes_per_s": 12_499_999}),
        ("inet_down>=100MB/s", {"inet_down_bytes_per_s": 100_000_000}, {"inet_down_bytes_per_s": 12_500_000}),
        ("notice>=1h", {"notice_s": 3_600}, {"notice_s": 3_599}),
        ("4090", {"model": "rtx 4090"}, {"model": "H100"}),
        ('"x 4090"', {"model": "RTX 4090"}, {"model": "RTX4090"}),
        ("us-w", {"region": "US-West"}, {}),
        ("580.65", {"driver": "580.65.06"}, {"driver": "535"}),
        ("alpha rtx", {}, {"provider": "12D3KooWBravo"}),
        ("price<100 or region=us verified", {"region": "us"}, {"region": "us", "verified": False}),
        ("(price<100 or region=us) verified", {"rate_qu_per_h": 5}, {"rate_qu_per_h": 5, "verified": False}),
        ("not price<100 and verified", {}, {"verified": False}),
        ("verified=any", {"verified": False}, None),
        ("", {}, None),
    ],
)  # fmt: skip
def test_a_line_finds_what_it_says(line: str, matches: dict[str, Any], misses: dict[str, Any] | None) -> None:
    assert found(line, **matches)
    if misses is not None:
        assert not found(line, **misses)


UNTOLD = listing(
    model="", memory_bytes=0, cores=0, driver="", cuda="", compute_capability="", region="", country="", backends=()
)
NEVER_UNKNOWN = frozenset(
    [
        *(
            "gpu_name",
            "num_gpus",
            "backend",
            "kind",
            "browser",
            "isolation",
            "country_seen",
            "price",
            "verified",
            "stale",
        ),
        *("jobs_accepted", "jobs_rejected", "rentable", "availability", "provider", "device", "listing"),
    ]
)


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_an_unknown_reading_satisfies_nothing_but_the_question_for_it(name: str) -> None:
    field, word = FIELDS[name], words_of(FIELDS[name])[0]
    if name in NEVER_UNKNOWN:
        assert not parse(f"{name}=unknown").matches(UNTOLD)
        assert parse(f"{name}!=unknown").matches(UNTOLD)
        return
    forms = [f"{name}={word}", f"{name}!={word}", f"{name} in [{word}]", f"{name} notin [{word}]"]
    if field.kind in (Kind.WHOLE, Kind.REAL, Kind.VERSION):
        forms += [f"{name}{op}{word}" for op in ("<", "<=", ">", ">=")] + [f"{name}=..{word}", f"{name}!={word}.."]
    for form in forms:
        assert not parse(form).matches(UNTOLD), form
        assert not parse(f"not ({form})").matches(UNTOLD), form
        assert parse(f"({form}) or verified").matches(UNTOLD), form
        assert not parse(f"not (({form}) and verified)").matches(UNTOLD), form
    assert parse(f"{name}=unknown").matches(UNTOLD)
    assert not parse(f"not {name}=unknown").matches(UNTOLD)
    assert parse(f"{name}=any").matches(UNTOLD)


def test_readings_are_read() -> None:
    sample = Sample(at_ms=1, temperature_c=71.5, memory_used_bytes=GIB, power_mw=75_000, utilisation_pct=0.0)
    for line in ("temp>71°C", "memory_free=23GiB", "power<=75W", "use=0%", "gpu_util<1"):
        assert found(line, metrics=sample), line
        assert not found(line, metrics=None), line


def test_every_name_of_a_field_is_the_only_one_of_its_kind() -> None:
    assert len(NAMES) == sum(1 + len(one.aliases) for one in FIELDS.values())
    wanted = (
        "gpu_name num_gpus gpu_ram compute_cap cuda_vers driver_version cpu_cores cpu_ram disk_space inet_up inet_down"
    )
    wanted += " geolocation reliability verified score score_per_cost price_per_hour rentable"
    assert set(wanted.split()) <= set(NAMES)


# How it is written ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("gpu_ram >= 8 GB AND price<1_000", "gpu_ram>=8GB price<1_000QU/h"),
        ("gpu_ram=8..24GiB", "gpu_ram=8GiB..24GiB"),
        ("a b or c d", '"a" "b" or "c" "d"'),
        ("(a or b) (c or d)", '("a" or "b") ("c" or "d")'),
        ("not (a b)", 'not ("a" "b")'),
        ("not not VERIFIED", "not not verified=true"),
        ("((a))", '"a"'),
        ("a (b (c d))", '"a" "b" "c" "d"'),
        ("Region NOT IN ['New York', EU]", 'region notin ["new york", eu]'),
        ("country in [de, IN]", "country in [DE, IN]"),
        (r'"say \"hi\" \\"', r'"say \"hi\" \\"'),
        ("temp==unknown", "temperature=unknown"),
        ("cuda=12.4..", "cuda_vers=12.4.."),
        ("price=8 .. 24", "price=8QU/h..24QU/h"),
        ("price=8.. and a", 'price=8QU/h.. "a"'),
        ("price=8.. region=eu", "price=8QU/h.. region=eu"),
        ("price=8.. 'a b'", 'price=8QU/h.. "a b"'),
    ],
)
def test_the_canonical_line(line: str, text: str) -> None:
    assert parse(line).text() == text
    assert parse(text) == parse(line)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(line=lines)
def test_a_query_survives_its_own_text(line: str) -> None:
    once = parse(line)
    again = parse(once.text())
    assert again == once
    assert again.text() == once.text()


@settings(deadline=None, derandomize=True, max_examples=100)
@given(line=lines, changes=listing_fields)
def test_a_query_and_its_opposite_never_find_the_same(line: str, changes: dict[str, Any]) -> None:
    one = listing(**changes)
    both = (parse(line).matches(one), parse(f"not ({line})").matches(one))
    assert both != (True, True)
    assert parse(f"({line}) and not ({line})").matches(one) is False
    assert parse(line).matches(one) == all(part.matches(one) for part in parse(line).filters())


# Defaults ------------------------------------------------------------------------------------------------------------


def test_defaults_are_seen_and_can_be_cleared() -> None:
    defaults = query.SEARCH_DEFAULTS
    assert parse("gpu_ram>=8", defaults=defaults).text() == "rentable=true gpu_ram>=8GB"
    assert parse("", defaults=defaults).text() == "rentable=true"
    assert parse("rentable=any", defaults=defaults).text() == "rentable=any"
    assert parse("available=no a", defaults=defaults).text() == 'rentable=false "a"'
    assert parse("a or b", defaults=defaults).text() == 'rentable=true ("a" or "b")'
    assert parse("a", defaults="rentable=true verified=any").text() == 'rentable=true verified=any "a"'
    text = parse("gpu_ram>=8", defaults=defaults).text()
    assert parse(text, defaults=defaults) == parse(text)


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "column", "problem", "remedy"),
    [
        ("gpu_rm>=8", 1, "no field 'gpu_rm'", "Did you mean gpu_ram or cpu_ram?"),
        ("verified  and pricee<5", 15, "no field 'pricee'", "Did you mean price?"),
        ("xyzzy=5", 1, "no field 'xyzzy'", "Fields are availability, "),
        ("made in china", 1, "no field 'made'", "Fields are"),
        ("gpu_ram", 1, "needs an operator", "gpu_ram=…"),
        ("gpu_ram 8", 1, "needs an operator", "gpu_ram=…"),
        ("gpu_ram=>8", 8, "'=>' is no operator", ">="),
        ("gpu_ram>=8XB", 11, "'XB' is no unit of a size", "GiB"),
        ("gpu_ram>=8GBit", 11, "'GBit' is no unit", "GB"),
        ("gpu_ram>=8MB/s", 11, "'MB/s' is no unit", "MB"),
        ("inet_up>=8mb/s", 11, "'mb/s' is no unit", "Mbit/s or MB/s"),
        ("temperature<80°F", 15, "'°F' is no unit", "°C"),
        ("num_gpus>=4GB", 12, "'GB' is no unit", "k or M"),
        ("price>=x", 8, "'x' is not a price", "QU/h"),
        ("price<", 7, "a value is missing before the end", "value"),
        ("price< and verified", 8, "'and' is not a price", "QU/h"),
        ("price<>5", 7, "a value is missing", "value"),
        ("price ! 5", 7, "no operator", "!="),
        ("price:5", 6, "':' is no operator", "price=5"),
        ("price~5", 6, "'~' is no operator", "price=5"),
        ("verified && rentable", 10, "'&&'", "and"),
        ("verified, rentable", 9, "no commas", "blank"),
        ("price<5 < 6", 9, "missing before '<'", "FIELD"),
        ("price=8.. rtx", 11, "'rtx' is not a price", "QU/h"),
        ("price<500 and", 14, "a filter is missing before the end", "FIELD"),
        ("or price<5", 1, "a filter is missing before 'or'", "FIELD"),
        ("a and or b", 7, "a filter is missing before 'or'", "FIELD"),
        ("not", 4, "a filter is missing", "FIELD"),
        ("()", 2, "a filter is missing before ')'", "FIELD"),
        ("(a", 3, "not closed", "Add )"),
        ("a)", 2, "never opened", "("),
        ("region in [EU", 14, "list is not closed", "]"),
        ("region in [EU US]", 15, "list is not closed before 'US'", ","),
        ("region in []", 8, "list is empty", "any"),
        ("region in EU", 11, "needs a list or a range", "region in [EU]"),
        ("region in", 10, "missing before the end", ""),
        ("region<[EU]", 7, "does not go with a list", "in"),
        ("region in [any]", 12, "does not go into a list", "region=any"),
        ('a "b c', 3, "quote", 'Add "'),
        ('""', 1, "nothing to look for", "word"),
        ("price in 5..3", 10, "is empty", "3QU/h..5QU/h"),
        ("gpu_ram=24GB..8", 9, "is empty", ".."),
        ("price<5..9", 6, "does not go with a range", "price="),
        ("region=a..b", 8, "no order", "in"),
        ("8..24", 2, "a range needs a field", "FIELD=8..24"),
        ("price=..any", 9, "no end of a range", "open"),
        ("gpu_name<H100", 9, "no order", "="),
        ("verified=maybe", 10, "neither true nor false", "=any"),
        ("verified>=true", 9, "no order", "="),
        ("kind=cdua", 6, "'cdua' is no kind", "cuda"),
        ("availability=gone", 14, "'gone' is no availability", "available"),
        ("reliability>98", 13, "not a share", "98%"),
        ("utilisation<101", 13, "not from 0 to 100", "percentage"),
        ("price<-5", 7, "out of range", "price"),
        ("price<9999999999999999999999", 7, "out of range", "price"),
        ("price<" + "9" * 33, 7, "too many digits", "fewer"),
        ("compute_cap>=890", 14, "no compute capability", "8.9"),
        ("driver_version>=abc", 17, "not a version", "12.4"),
        ("country=UK", 9, "no country", "GB"),
        ("country=Germany", 9, "no country", "two letters"),
        ("price>=any", 6, "does not go with 'any'", "price=any"),
        ("price<unknown", 6, "does not go with 'unknown'", "price=unknown"),
        ("region=\"a\tb\"", 8, "nothing to look for", "any"),
    ],
)  # fmt: skip
def test_an_error_points_at_its_column_and_helps(line: str, column: int, problem: str, remedy: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(line)
    assert (caught.value.column, problem in caught.value.problem, remedy in caught.value.remedy) == (
        column,
        True,
        True,
    ), (caught.value.problem, caught.value.remedy)
    assert caught.value.caret(line).splitlines()[1].index("^") == column - 1


def test_bounds() -> None:
    for line in (
        "a" * (LENGTH_MAX + 1),
        " ".join(["a"] * (TERMS_MAX + 1)),
        "not " * (DEPTH_MAX + 1) + "a",
        "(a or b (" * (DEPTH_MAX) + "c" + "))" * DEPTH_MAX,
    ):
        with pytest.raises(QueryError):
            parse(line)
    assert parse(" ".join(["a"] * TERMS_MAX)).filters()[-1].text() == '"a"'
    assert parse("(" * 900 + "a" + ")" * 900).text() == '"a"'


@pytest.mark.parametrize(
    "line",
    [
        *(
            "(" * LENGTH_MAX,
            "not " * (LENGTH_MAX // 4),
            "a=" * (LENGTH_MAX // 2),
            "a or " * 400 + "b",
            "[" * LENGTH_MAX,
        ),
        *(
            " " * (LENGTH_MAX - 1) + "<",
            "1" * LENGTH_MAX,
            "8 " * (LENGTH_MAX // 2),
            "'" * LENGTH_MAX,
            "\\" * LENGTH_MAX,
        ),
    ],
)
def test_no_line_takes_long(line: str) -> None:
    started = time.process_time()
    with contextlib.suppress(QueryError):
        parse(line)
    assert time.process_time() - started < 5


PIECES = (
    *("price", "gpu_ram", "region", "verified", "foo", "<", "<=", "=", "!=", ">", "in", "not", "notin", "and", "or"),
    *("any", "(", ")", "[", "]", ",", "..", '"', "'", "\\", "8", "8GB", "-5", ".5", "%", "°C", "unknown", " ", "  "),
    *("\n", "\x00", "é", "😀"),
)  # fmt: skip


@settings(deadline=None, derandomize=True, max_examples=300)
@given(line=st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_any_text_is_a_query_or_an_error_with_a_column(line: str) -> None:
    found, error = attempt(line)
    if error is not None:
        assert 1 <= error.column <= len(line) + 1
        assert error.problem
        assert error.remedy
    else:
        assert found is not None
        assert parse(found.text()) == found
        assert isinstance(found.matches(listing()), bool)


# Sorting -------------------------------------------------------------------------------------------------------------


def test_order_lines() -> None:
    keys = (SortKey("score_per_qu", descending=True), SortKey("price"), SortKey("temperature", nulls_first=True))
    assert parse_order("score_per_qu-, price, temp nulls first") == keys
    assert parse_order(query.order_text(keys)) == keys
    assert parse_order("-price") == parse_order("dph desc") == (SortKey("price", descending=True),)
    assert parse_order(" ") == ()


@pytest.mark.parametrize(
    ("line", "column", "remedy"),
    [
        ("pric", 1, "price"),
        ("price, scor-", 8, "score"),
        ("price,,score", 7, "FIELD"),
        ("price, dph", 8, "once"),
        ("backend", 1, "another"),
        ("-price-", 2, "price-"),
        ("price nulls", 1, "nulls first"),
        ("gpu_name,price,score,region,power,fan,clock", 1, "fewer"),
    ],
)
def test_a_wrong_order_points_at_its_column(line: str, column: int, remedy: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse_order(line)
    assert caught.value.column == column
    assert remedy in caught.value.remedy


def test_unknown_comes_last_in_both_directions() -> None:
    heat = [None, 50.0, 80.0, 50.0]
    views = [
        listing(number, metrics=Sample(at_ms=1, temperature_c=value)) for number, value in enumerate(heat, start=1)
    ]

    def numbers(line: str) -> list[str]:
        return [one.device_id[-1] for one in ordered(reversed(views), parse_order(line))]

    assert numbers("temp") == ["2", "4", "3", "1"]
    assert numbers("temp-") == ["3", "2", "4", "1"]
    assert numbers("temp nulls first") == ["1", "2", "4", "3"]
    assert numbers("temp- nulls first") == ["1", "3", "2", "4"]
    assert numbers("") == ["1", "2", "3", "4"]


@settings(deadline=None, derandomize=True, max_examples=100)
@given(order=orders(), fields=st.lists(listing_fields, max_size=8))
def test_sorting_is_one_order_of_the_same_listings(order: str, fields: list[dict[str, Any]]) -> None:
    views = [listing(number, **changes) for number, changes in enumerate(fields)]
    keys = parse_order(order)
    once = ordered(views, keys)
    assert sorted(one.listing_id for one in once) == [one.listing_id for one in views]
    assert ordered(reversed(views), keys) == once


@pytest.mark.parametrize("name", sorted(name for name, one in FIELDS.items() if one.kind in SORTABLE))
def test_every_field_sorts(name: str) -> None:
    other = ListingView(**{one: getattr(UNTOLD, one) for one in UNTOLD.__struct_fields__} | {"listing_id": "0"})
    assert len(ordered([listing(), UNTOLD, other], parse_order(f"{name}-"))) == 3
