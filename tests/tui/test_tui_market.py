# SPDX-License-Identifier: Apache-2.0
"""The Market screen: live, sorted, queried, readable without colour, and honest without a coordinator."""

import socket
import uuid
from pathlib import Path

import msgspec
import pytest
from textual.widgets import Input

from qubix_protocol.account_news import BalanceNews, WithdrawalNews
from qubix_protocol.api import AccountView, MarketDelta
from qubix_protocol.selftest import Check, CheckStatus
from qubix_protocol.withdrawals import WithdrawalState
from qubix_tui.feed import LOOK_S
from tests.support.fake_api import TOKEN
from tests.tui.api import MOMENT_MS, TuiApi, withdrawal
from tests.tui.world import (
    LARGE,
    MARKET,
    SMALL,
    Clock,
    Line,
    assert_screen,
    assert_without_colour,
    gpu,
    market,
    settings,
    shows,
    terminal,
    text,
    types,
    until,
)

pytestmark = pytest.mark.asyncio
ACCOUNT = AccountView(
    account_id="00000000-0000-0000-0000-000000000001", name="tester", balance_qu=1_234_567, held_qu=0, scopes=("user",)
)
PRICES = ["5,000", "60,000", "70,000", "90,000"]


def prices(screen: str) -> list[str]:
    """Of the rows in sight, from the top."""
    return [word for row in screen.splitlines() for word in row.split() if word in PRICES]


async def test_offers_come_and_change_and_go(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path) as (app, pilot, line):
        line.send("market", "snapshot", MARKET)
        line.send("account", "snapshot", BalanceNews(account=ACCOUNT))
        await shows(pilot, "RTX 4090 ×4", "H100", "EPYC", "4 of 4", "● live", "1,234,567 QU")
        assert prices(text(app)) == PRICES
        line.send("market", "delta", MarketDelta(listings=(msgspec.structs.replace(MARKET[0], rate_qu_per_h=1_000),)))
        await shows(pilot, " 1,000 ")
        assert prices(text(app)) == PRICES[:3]
        line.send("market", "delta", MarketDelta(gone=(MARKET[1].listing_id,)))
        await shows(pilot, "3 of 3")
        assert "H100" not in text(app)


async def test_the_order_is_chosen_by_key_and_the_cursor_stays_on_its_device(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, offers=MARKET) as (app, pilot, _):
        await shows(pilot, "4 of 4")
        await pilot.press("down")
        await shows(pilot, "▶ H100")
        await pilot.press("S")
        await shows(pilot, "by price-")
        assert prices(text(app)) == PRICES[::-1]
        assert "▶ H100" in text(app)
        await pilot.press("s")
        await shows(pilot, "by score-")
        assert "▶ H100" in text(app)


async def test_none_yet_is_told_from_no_match(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path) as (app, pilot, line):
        await shows(pilot, "Waiting for the market", "◌ connecting")
        line.send("market", "snapshot", [])
        await shows(pilot, "Nothing is offered now", "qubix node")
        line.send("market", "snapshot", MARKET)
        await shows(pilot, "4 of 4")
        await pilot.press("slash")
        await types(pilot, *"h100")
        await shows(pilot, "1 of 4", "H100")
        assert "EPYC" not in text(app)
        await pilot.press(*"zzz")
        await shows(pilot, "No match: the query excludes all 4 devices", "0 of 4")
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.focused, Input), "the focus back on the list")
        await pilot.press("escape")
        await shows(pilot, "4 of 4")


async def test_a_wrong_query_is_pointed_at_while_it_is_typed(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, offers=MARKET) as (app, pilot, _):
        await shows(pilot, "4 of 4")
        await pilot.press("slash")
        await types(pilot, *"gpu_ram>=30")
        await shows(pilot, "1 of 4")
        await pilot.press("space", "left_parenthesis")
        await shows(pilot, "✗", "1 of 4")
        await pilot.press("backspace", *"prize<9")
        await shows(pilot, "✗", "price")
        rows = text(app).splitlines()
        at = next(number for number, row in enumerate(rows) if "^" in row)
        assert rows[at].index("^") == rows[at - 1].index("prize")
        await pilot.press(*["backspace"] * 8)
        await until(pilot, lambda: "✗" not in text(app).replace("✗ no", ""))


async def test_an_order_can_be_typed(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, offers=MARKET) as (app, pilot, _):
        await shows(pilot, "4 of 4")
        await pilot.press("o")
        await shows(pilot, "Sort by")
        await types(pilot, *"x", "enter")
        await shows(pilot, "column 1")
        await pilot.press(*["backspace"] * 6, *"gpu_ram-,price", "enter")
        await shows(pilot, "by gpu_ram-, price")
        assert prices(text(app)) == ["60,000", "5,000", "70,000", "90,000"]


async def test_a_lost_connection_keeps_the_data_and_says_how_old_it_is(api: TuiApi, tmp_path: Path) -> None:
    clock, second = Clock(), Line()
    async with market(api, tmp_path, clock=clock, offers=MARKET) as (app, pilot, first):
        await shows(pilot, "4 of 4", "● live")
        first.cut()
        clock.now_s += 34
        await shows(pilot, "data 34 s old", "RTX 4090")
        assert "● live" not in text(app)
        second.send("market", "delta", MarketDelta(listings=(gpu("five", 1_500),)))
        api.live.append(second)
        await shows(pilot, "● live", "5 of 5", "1,500")
        assert api.subscriptions[-1]["subscribe"][0]["cursor"] == "1.0", "taken up where it broke"
        second.cut()


async def test_without_a_coordinator_there_is_a_next_step(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        async with terminal(settings(url, tmp_path)) as (app, pilot):
            await shows(pilot, "no coordinator answers", "qubix up", "○ offline")
            assert "Traceback" not in text(app)


async def test_without_a_token_it_says_how_to_sign_in(api: TuiApi, tmp_path: Path) -> None:
    async with terminal(settings(api.url, tmp_path, token="of nobody")) as (_, pilot):
        await shows(pilot, "no such token", "Sign in", "QUBIX_TOKEN")


async def test_a_visitor_sees_the_market_and_is_told_how_to_sign_in(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, token="", offers=MARKET) as (app, pilot, line):
        await shows(pilot, "4 of 4", "● live", "not signed in")
        assert "Sign in" not in text(app)
        await pilot.press("n")
        await shows(pilot, "a rental needs an account", "Sign in on the Wallet screen")
        assert "Rent this device" not in text(app)
        await pilot.press("3")
        await shows(pilot, "  no such token. Sign in on the Wallet screen (6, then l)", "● live")
        await pilot.press("1")
        line.cut()
        await until(pilot, lambda: api.calls("GET", "/offers"), "the question what is the matter")
        await shows(pilot, "4 of 4", "○ offline", "RTX 4090", "not signed in")
        assert app.feed.error is None, "the coordinator is there, and a visitor may look"


async def test_a_token_that_comes_later_is_taken_up(api: TuiApi, tmp_path: Path) -> None:
    """`qubix wallet login` may be said in another terminal."""
    clock = Clock()
    async with market(api, tmp_path, token="", clock=clock, offers=MARKET) as (_, pilot, visit):
        await shows(pilot, "4 of 4", "not signed in")
        token = tmp_path / "developer.token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        signed_in = Line()
        api.live.append(signed_in)
        clock.now_s += LOOK_S
        visit.send("market", "delta", MarketDelta(listings=(gpu("five", 1_500),)))
        visit.cut()
        signed_in.send("account", "snapshot", BalanceNews(account=ACCOUNT))
        await shows(pilot, "5 of 5", "1,234,567 QU", "● live")
        signed_in.cut()


async def test_only_rows_in_sight_are_drawn(api: TuiApi, tmp_path: Path) -> None:
    many = [gpu(f"n{number}", 1_000 + number) for number in range(2_000)]
    async with market(api, tmp_path, LARGE) as (app, pilot, line):
        line.send("market", "snapshot", many)
        await shows(pilot, "2,000 of 2,000")
        grid = app.screen.query_one("#market")
        await pilot.press("end")
        await shows(pilot, "2,999")
        before = grid.drawn_rows  # type: ignore[attr-defined]
        line.send("market", "delta", MarketDelta(listings=(msgspec.structs.replace(many[5], reliability=0.5),)))
        line.send("market", "delta", MarketDelta(listings=(msgspec.structs.replace(many[1_998], reliability=0.123),)))
        await shows(pilot, "12.3 %")
        assert grid.drawn_rows - before < LARGE[1]  # type: ignore[attr-defined]


async def test_details_say_what_there_is_and_what_there_is_not(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, (120, 90), offers=MARKET) as (_, pilot, line):
        await shows(pilot, "4 of 4")
        await pilot.press("enter")
        await shows(pilot, "Specification", "AMD EPYC 7763 (CPU)", "has told none yet", "5,000 QU an hour")
        await shows(pilot, "the device has not told it", "last 50.0, lowest 50.0", "4,321 QU an hour")
        await shows(pilot, "90%. 9 of 10 checks passed", "checks: 90 of 100 results", "there is none yet; its owner")
        await pilot.press("h")
        await shows(pilot, "over the last 6 h", "last 50.0")
        await pilot.press("t")
        await shows(pilot, "the device is not yours", "Ask its owner")
        line.send("market", "delta", MarketDelta(gone=(MARKET[3].listing_id,)))
        await shows(pilot, "has left the market")
        await pilot.press("escape")
        await shows(pilot, "3 of 3")


async def test_a_self_test_says_what_to_do(api: TuiApi, tmp_path: Path) -> None:
    bad = Check(
        id="thermals", title="Heat", status=CheckStatus.FAIL, actual="97", required="under 90", unit="°C", purpose="",
        remedy="Clean the fan.",
    )  # fmt: skip
    good = Check(id="clock", title="Clock", status=CheckStatus.PASS, actual="1", purpose="")
    api.selftest = {"at_ms": MOMENT_MS, "full": True, "checks": (bad, good)}
    async with market(api, tmp_path, (120, 90), offers=MARKET) as (_, pilot, _line):
        await shows(pilot, "4 of 4")
        await pilot.press("enter")
        await shows(
            pilot, "✗ not passed", "✗ fail Heat: 97 °C, needed under 90 °C", "Clean the fan.", "✓ pass Clock: 1"
        )


async def test_a_device_is_rented_after_its_price_was_shown(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, offers=MARKET) as (_, pilot, line):
        line.send("market", "snapshot", MARKET)
        line.send("account", "snapshot", BalanceNews(account=ACCOUNT))
        await shows(pilot, "4 of 4", "1,234,567")
        await pilot.press("n")
        await shows(pilot, "Rent this device", "EPYC 7763 (CPU) at 5,000 QU")
        await types(pilot, "backspace", "backspace", *"ten", "ctrl+s")
        await shows(pilot, "'ten' is no whole number")
        await pilot.press("backspace", "backspace", "backspace", *"90", "ctrl+s")
        await shows(pilot, "Rent it?", "90 minutes", "At most 7,500 QU are held", "Your balance: 1,234,567 QU")
        assert api.rentals == {}
        await pilot.press("y")
        await shows(pilot, "Rented: AMD EPYC 7763")
        (made,) = api.rentals.values()
        assert made.seconds == 5_400
        await pilot.press("n")
        await shows(pilot, "How many minutes")
        await pilot.press("escape")
        await shows(pilot, "Details")
        assert len(api.rentals) == 1


async def test_a_refusal_is_told_with_its_remedy(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, offers=MARKET) as (_, pilot, _line):
        await shows(pilot, "4 of 4")
        api.trouble("GET", "/offers", 500)
        await pilot.press("n")
        await shows(pilot, "How many minutes")
        await pilot.press("ctrl+s")
        await shows(pilot, "Rent it?")
        await pilot.press("y")
        await shows(pilot, "was answered with HTTP status 500", "Check that QUBIX_COORDINATOR_URL")


async def test_every_key_is_a_command_too(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, offers=MARKET) as (_, pilot, _line):
        await shows(pilot, "4 of 4")
        await pilot.press("ctrl+p")
        await types(pilot, *"Reverse")
        await shows(pilot, "On this screen (key S)")
        await pilot.press("enter")
        await shows(pilot, "by price-")
        await pilot.press("question_mark")
        await shows(pilot, "[? Help]", "Everywhere")
        await pilot.press("1")
        await shows(pilot, "[1 Market]", "4 of 4")
        titles = [command.title for command in pilot.app.get_system_commands(pilot.app.screen)]
        assert len(titles) == len(set(titles)), "what has several keys is one command"


async def test_a_withdrawals_step_on_the_accounts_topic_changes_no_balance(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, SMALL, Clock()) as (_, pilot, line):
        line.send("market", "snapshot", MARKET)
        line.send("account", "snapshot", BalanceNews(account=ACCOUNT))
        step = withdrawal(400, WithdrawalState.SIGNED, str(uuid.UUID(int=2)))
        line.send("account", "delta", WithdrawalNews(withdrawal=step))
        line.send("account", "delta", BalanceNews(account=msgspec.structs.replace(ACCOUNT, balance_qu=7_654_321)))
        await shows(pilot, "4 of 4", "7,654,321 QU", "live")


async def test_what_a_newer_coordinator_tells_of_the_account_is_passed_over(api: TuiApi, tmp_path: Path) -> None:
    """On the same connection: a new one would begin with the same words."""
    async with market(api, tmp_path, SMALL, Clock()) as (_, pilot, line):
        line.send("market", "snapshot", MARKET)
        line.send("account", "snapshot", BalanceNews(account=ACCOUNT))
        line.send("account", "delta", {"about": "a word of next year", "account": 5})
        line.send("account", "celebration", {"cake": True})
        line.send("weather", "delta", {"rain": 1})
        line.send("account", "delta", BalanceNews(account=msgspec.structs.replace(ACCOUNT, balance_qu=7_654_321)))
        await shows(pilot, "4 of 4", "7,654,321 QU", "live")


@pytest.mark.parametrize(("name", "size"), [("market-80x24", SMALL), ("market-200x50", LARGE)])
async def test_how_it_looks(name: str, size: tuple[int, int], api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, size, Clock()) as (_app, pilot, line):
        line.send("market", "snapshot", MARKET)
        line.send("account", "snapshot", BalanceNews(account=ACCOUNT))
        await shows(pilot, "4 of 4", "1,234,567 QU")
        await assert_screen(pilot, name)


async def test_without_colour_it_says_the_same(api: TuiApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with market(api, tmp_path, SMALL, Clock()) as (app, pilot, line):
        line.send("market", "snapshot", MARKET)
        line.send("account", "snapshot", BalanceNews(account=ACCOUNT))
        await shows(pilot, "4 of 4", "1,234,567 QU")
        await assert_screen(pilot, "market-80x24")
        assert_without_colour(app)
