# SPDX-License-Identifier: Apache-2.0
"""Provider, Wallet and Disputes: what was earned and by what, QU in and out, signing in, evidence and the next word."""

from pathlib import Path

import pytest

from qubix import keystore
from qubix.keystore import Cost, Seed
from qubix_protocol.api import MarketDelta, StatementLine
from qubix_protocol.deposits import DepositView
from qubix_protocol.disputes import DisputeState
from qubix_protocol.states import JobState
from qubix_protocol.withdrawals import AddressView, WithdrawalState
from qubix_tui import drawn
from qubix_tui.screens.provider import owned
from tests.tui.api import IDENTITY, MOMENT_MS, TuiApi, named, period, worked
from tests.tui.world import LARGE, MARKET, SMALL, Clock, assert_screen, fill, gone, market, shows, text, until

pytestmark = pytest.mark.asyncio
PASSPHRASE = "correct horse battery"
SEED = "wqbdupxgcaimwdsnchitjmsplzclkqokhadgehdxqogeeiovzvadstt"


def earning(api: TuiApi) -> None:
    api.earned = [period("2026-11-23", 400), period("2026-11-24", 1_200), period("2026-11-25", 800)]
    api.works = [worked("now", state="running", ended_ms=None, reason_text=""), worked("before")]


def moving(api: TuiApi) -> None:
    api.statement = [StatementLine(id=2, at_ms=MOMENT_MS, kind="hold", cause="hold:job-1:0", amount_qu=-200)]
    api.deposits = [
        DepositView(
            deposit_id=named("deposit"), tick=7, tx_id="transaction-of-it", output=0, source=IDENTITY, amount_qu=5_000,
            state="seen", reason="", text="waits for the next tick", evidence="", seen_ms=MOMENT_MS,
        )
    ]  # fmt: skip
    api.addresses = [AddressView(identity=IDENTITY, label="home", added_ms=1, usable_ms=1)]


# Provider -------------------------------------------------------------------------------------------------------------


async def test_what_was_earned_and_by_what(api: TuiApi, tmp_path: Path) -> None:
    earning(api)
    async with market(api, tmp_path, LARGE, offers=MARKET) as (_, pilot, line):
        await pilot.press("5")
        await shows(pilot, "net 2,400 QU", "Net by day", "last 800, most 1,200 QU", "own device", "matmul running")
        await shows(pilot, "finished by the provider", "90,000", "● available", " 55 ")
        line.send("market", "delta", MarketDelta(gone=(MARKET[0].listing_id,)))
        await shows(pilot, "○ not listed")
        await pilot.press("b")
        await shows(pilot, "Net by week")
        await pilot.press("p")
        await shows(pilot, "qubix node --maintenance-in", "qubix node --set-rate")
        await pilot.press("escape")
        await gone(pilot, "qubix node --set-rate")
        await pilot.press("enter")
        await shows(pilot, "began", "rate", "90,000 QU an hour")


async def test_a_device_of_ones_own_is_shown_in_full(api: TuiApi, tmp_path: Path) -> None:
    earning(api)
    async with market(api, tmp_path, LARGE, offers=MARKET) as (app, pilot, _line):
        await pilot.press("5")
        await shows(pilot, "own device")
        devices = app.screen.query_one("#devices").focus()
        await until(pilot, lambda: app.focused is devices, "the focus on the devices")
        await pilot.press("enter")
        await shows(pilot, "Specification", "Temperature over the last")


async def test_nothing_earned_says_how_to_begin(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, offers=MARKET) as (_, pilot, _line):
        await pilot.press("5")
        await shows(pilot, "net 0 QU", "nothing so far", "No work yet", "qubix node")


async def test_devices_are_those_that_earned_or_worked() -> None:
    found = owned([], [worked("new", ended_ms=None), worked("old")])
    ((earned, work),) = found.values()
    assert earned.net_qu == 0
    assert work is not None
    assert work.work_id == named("new")


# Wallet ---------------------------------------------------------------------------------------------------------------


async def test_balances_and_all_that_moved(api: TuiApi, tmp_path: Path) -> None:
    moving(api)
    async with market(api, tmp_path, LARGE, offers=MARKET) as (_, pilot, _line):
        await pilot.press("6")
        await shows(pilot, "1,000 QU available", "77,000 QU at SUZFFQSCVPHY", "900 QU. 100 QU were earned lately")
        await shows(pilot, "none yet: `qubix wallet create`", "-200", "job-1")
        await pilot.press("t")
        await shows(pilot, "◌ seen", "waits for the next tick")
        await pilot.press("enter")
        await shows(pilot, "transaction-of-it")
        await pilot.press("escape")
        await gone(pilot, "transaction-of-it")
        await pilot.press("t")
        await shows(pilot, "No withdrawals yet", "w sends QU out")


async def test_a_deposit_is_shown_as_a_code(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, SMALL, offers=MARKET) as (app, pilot, _line):
        await pilot.press("6")
        await shows(pilot, "available")
        await pilot.press("d")
        await shows(pilot, IDENTITY, "1,000 QU or more", "play money")
        code = drawn.qr(IDENTITY)
        await pilot.press("end")
        await shows(pilot, *code[-5:])
        assert max(map(len, text(app).splitlines())) <= SMALL[0]


async def test_qu_go_out_to_a_listed_address(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, LARGE, offers=MARKET) as (_, pilot, _line):
        await pilot.press("6")
        await shows(pilot, "available")
        await pilot.press("w")
        await shows(pilot, "none is listed", "List one: a")
        await pilot.press("a")
        await shows(pilot, "Where withdrawals may go")
        await fill(pilot, field_identity=IDENTITY[:-1] + "A")
        await pilot.press("ctrl+s")
        await shows(pilot, "✗", "Copy all 60 capital letters")
        await fill(pilot, field_identity=IDENTITY, field_label="home")
        await pilot.press("ctrl+s")
        await shows(pilot, "Listed; it can be used from")
        await pilot.press("w")
        await shows(pilot, "900 of 1,000 QU can be withdrawn", "home")
        await fill(pilot, field_to="NOBODY", field_amount="950")
        await pilot.press("ctrl+s")
        await shows(pilot, "'NOBODY' is none of the listed addresses")
        await fill(pilot, field_to=IDENTITY[:8])
        await pilot.press("ctrl+s")
        await shows(pilot, "950 QU to", IDENTITY)
        await pilot.press("y")
        await shows(pilot, "only 900 QU can go out", "Ask for less")
        await pilot.press("w")
        await shows(pilot, "Withdraw QU")
        await fill(pilot, field_amount="400")
        await pilot.press("ctrl+s")
        await shows(pilot, "400 QU to", IDENTITY)
        await pilot.press("y")
        await shows(pilot, "◌ waiting", "400", "The amount is set aside")
        await pilot.press("c")
        await shows(pilot, "400 QU return to your balance")
        await pilot.press("y")
        await shows(pilot, "✗ cancelled")
        assert [one.state for one in api.withdrawals.values()] == [WithdrawalState.CANCELLED]


async def test_signing_in_with_the_wallet_kept_here(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, LARGE, offers=MARKET) as (_, pilot, _line):
        await pilot.press("6")
        await shows(pilot, "available")
        await pilot.press("l")
        await shows(pilot, "there is no Qubic wallet", "qubix wallet create")
        keystore.create_sealed(tmp_path, Seed(SEED), PASSPHRASE, cost=Cost(log_n=10))
        await pilot.press("l")
        await shows(pilot, "Passphrase", "is sent nowhere")
        await fill(pilot, field_passphrase="wrong and long")
        await pilot.press("enter")
        await shows(pilot, "the passphrase does not open", "Try again")
        assert api.signed_in == []
        await pilot.press("l")
        await shows(pilot, "Passphrase")
        await fill(pilot, field_passphrase=PASSPHRASE)
        await pilot.press("enter")
        await shows(pilot, "Signed in as", "(a new account)")
        assert api.signed_in == [IDENTITY]
        await until(pilot, lambda: not any(PASSPHRASE in row for row in text(pilot.app).splitlines()))  # type: ignore[arg-type]


# Disputes -------------------------------------------------------------------------------------------------------------


async def test_a_dispute_from_its_opening_to_its_end(api: TuiApi, tmp_path: Path) -> None:
    job = api.add_job()
    api.change(job.job_id, state=JobState.DELIVERED)
    async with market(api, tmp_path, LARGE, offers=MARKET) as (_, pilot, _line):
        await pilot.press("7")
        await shows(pilot, "No disputes", "d in a job (3)")
        await pilot.press("3")
        await shows(pilot, "■ delivered")
        await pilot.press("enter")
        await shows(pilot, f"Job {job.job_id}")
        await pilot.press("d")
        await shows(pilot, "What is wrong")
        await fill(pilot, field_statement="half of it is zeros")
        await pilot.press("ctrl+s")
        await shows(pilot, "The dispute is open", "QU are staked")
        await pilot.press("7")
        await shows(pilot, "! opened", job.job_id[:8], "10,000")
        await pilot.press("enter")
        await shows(pilot, "Evidence", "Steps", "half of it is zeros", "consumer's order")
        await pilot.press("escape")
        await gone(pilot, "consumer's order")
        await pilot.press("e")
        await fill(pilot, field_statement="rows 3 and 4")
        await pilot.press("ctrl+s")
        (dispute_id,) = api.disputes
        await until(pilot, lambda: api.disputes[dispute_id].steps[-1].text == "rows 3 and 4")
        await pilot.press("x")
        await shows(pilot, "Take this dispute back?")
        await pilot.press("y")
        await shows(pilot, "✓ resolved", "withdrawn by who opened it")
        await pilot.press("e")
        await shows(pilot, "this dispute is resolved")


async def test_an_answer_does_not_concede_and_stake(api: TuiApi, tmp_path: Path) -> None:
    found = api.add_dispute(api.add_job().job_id)
    async with market(api, tmp_path, LARGE, offers=MARKET) as (_, pilot, _line):
        await pilot.press("7")
        await shows(pilot, "! opened")
        await pilot.press("a")
        await shows(pilot, "Answer the dispute", "Stake 25,000 QU")
        await fill(pilot, field_statement="it is right", field_concede="y", field_bond="y")
        await pilot.press("ctrl+s")
        await shows(pilot, "who concedes stakes nothing")
        await fill(pilot, field_concede="maybe")
        await pilot.press("ctrl+s")
        await shows(pilot, "neither yes nor no")
        await fill(pilot, field_concede="n")
        await pilot.press("ctrl+s")
        await shows(pilot, "▶ rerunning")
        assert api.disputes[found.dispute_id].state is DisputeState.RERUNNING


# How they look --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "200x50"])
@pytest.mark.parametrize(("key", "name", "sign"), [("5", "provider", "Net by day"), ("6", "wallet", "available")])
async def test_how_it_looks(key: str, name: str, sign: str, size: tuple[int, int], api: TuiApi, tmp_path: Path) -> None:
    """The wallet's screen names the address, whose port is of the moment."""
    earning(api)
    moving(api)
    async with market(api, tmp_path, size, Clock(), offers=MARKET) as (_app, pilot, _line):
        await pilot.press(key)
        await shows(pilot, sign, "shown")
        await assert_screen(pilot, f"{name}-{size[0]}x{size[1]}", hide=f"{api.port}")
