# SPDX-License-Identifier: Apache-2.0
"""Run, Jobs and Rentals: from a kernel's fields to a written result and a checked receipt; more time, and the end."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from textual.pilot import Pilot
from textual.widgets import OptionList

from qubix_kernels import get
from qubix_protocol.states import JobState, Reason, RentalState
from qubix_tui import composing
from qubix_tui.screens.run import TERMS
from tests.support.fake_api import FakeApi
from tests.tui.api import TuiApi, rental
from tests.tui.world import (
    LARGE,
    MARKET,
    SMALL,
    Clock,
    assert_screen,
    fill,
    focus,
    gone,
    market,
    shows,
    text,
    until,
)

pytestmark = pytest.mark.asyncio
A = np.arange(12, dtype=np.float32).reshape(4, 3)
B = np.arange(6, dtype=np.float32).reshape(3, 2)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    found = (str(tmp_path / "a.npy"), str(tmp_path / "b.npy"))
    np.save(found[0], A)
    np.save(found[1], B)
    return found


async def _chosen(pilot: Pilot[None], kernel: str) -> None:
    """Until all of its fields are there, and none of the kernel's before it."""
    options = pilot.app.screen.query_one("#kernels", OptionList)
    options.highlighted = options.get_option_index(kernel)
    wanted = [f"line-{one.name}" for one in (*composing.lines(get(kernel).spec), *TERMS)]
    await until(pilot, lambda: [one.id for one in pilot.app.screen.query("#lines Input")] == wanted, f"all of {wanted}")


async def test_from_fields_to_a_job(api: TuiApi, tmp_path: Path, files: tuple[str, str]) -> None:
    async with market(api, tmp_path, LARGE, offers=MARKET) as (_, pilot, _line):
        await pilot.press("2")
        await shows(pilot, "matmul", "Nearest neighbours")
        await _chosen(pilot, "matmul")
        await shows(pilot, "Matrix product", "a: float16/float32/float64[m, k]", "checked before anybody is paid")
        await pilot.press("f5")
        await shows(pilot, "matmul needs the array 'a'")
        await fill(pilot, line_input_a="float32[8, 4]", line_input_b="float32[4, 2]")
        await pilot.press("f5")
        await shows(pilot, "Forecast", "2.1–2.8 s", "45–56", "H100", "2 devices do not fit: it has no back end")
        await fill(pilot, line_where="gpu_rma>=8")
        await pilot.press("f5")
        await shows(pilot, "gpu_rma", "gpu_ram")
        await focus(pilot, "line-where")
        await fill(pilot, line_where="gpu_ram>=8")
        await pilot.press("ctrl+s")
        await shows(pilot, "the cap '' is no amount")
        await fill(pilot, line_cap="500")
        await pilot.press("ctrl+s")
        await shows(pilot, "a is given by its form alone")
        await fill(pilot, line_input_a=files[0], line_input_b=files[1], line_cap="5000")
        await pilot.press("ctrl+s")
        await shows(pilot, "above your balance of 1,000 QU", "Lower it")
        await fill(pilot, line_cap="500")
        await pilot.press("ctrl+s")
        await shows(pilot, "Submit this job?", "Held: 500 QU, never more", "Your balance: 1,000 QU", "45–56")
        assert api.jobs == {}
        await pilot.press("y")
        await shows(pilot, "[3 Jobs]", "◌ queued", "waiting")
        (job,) = api.jobs.values()
        assert (job.kernel, job.cap_qu) == ("matmul", 500)
        asked = [msgspec.json.decode(one.body) for one in api.calls("POST", "/jobs/estimate")]
        assert [(one.get("cap_qu"), one.get("where")) for one in asked][-1] == (500, "gpu_ram>=8")


async def test_a_file_that_is_none_is_named(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, LARGE, offers=MARKET) as (_, pilot, _line):
        await pilot.press("2")
        await shows(pilot, "matmul")
        await _chosen(pilot, "matmul")
        await shows(pilot, "Matrix product")
        await fill(pilot, line_input_a=str(tmp_path / "none.npy"), line_input_b="float32[4, 2]")
        await pilot.press("f5")
        await shows(pilot, "none.npy", "No such file", "Give the path of a .npy file")
        await fill(pilot, line_input_a="float99[1, 2]")
        await pilot.press("f5")
        await shows(pilot, "'float99' is no element type", "float32")


async def test_parameters_are_checked_where_they_are_typed(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, LARGE, offers=MARKET) as (_, pilot, _line):
        await pilot.press("2")
        await shows(pilot, "mandelbrot")
        await _chosen(pilot, "mandelbrot")
        await shows(pilot, "Mandelbrot set", "(1 to 65,536)")
        await fill(pilot, line_param_width="wide")
        await pilot.press("f5")
        await shows(pilot, "width: 'wide' is not a whole number")
        await focus(pilot, "line-param-width")
        await fill(pilot, line_param_width="64", line_param_height="70000")
        await pilot.press("f5")
        await shows(pilot, "height", "65536")
        await fill(pilot, line_param_height="64")
        await pilot.press("f5")
        await shows(pilot, "Forecast", "H100")


async def test_run_here_names_the_provider_and_its_price(api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, LARGE, offers=MARKET) as (_, pilot, _line):
        await shows(pilot, "4 of 4")
        await pilot.press("r")
        await shows(pilot, "[2 Run]", f"provider={MARKET[3].provider} price<=5000")


async def test_a_job_is_followed_to_its_result_and_receipt(api: TuiApi, tmp_path: Path) -> None:
    job = api.add_job()
    async with market(api, tmp_path, LARGE, offers=MARKET) as (_, pilot, _line):
        await pilot.press("3")
        await shows(pilot, job.job_id[:8], "◌ queued", "1 shown")
        await pilot.press("enter")
        await shows(pilot, f"Job {job.job_id}", "at the latest", "cap", "100 QU")
        await pilot.press("w")
        await shows(pilot, "a job that is queued cannot be written")
        api.change(
            job.job_id, state=JobState.RUNNING, reason=Reason.NONE, reason_text="", fraction=0.5, units_accepted=2
        )
        await shows(pilot, "▶ running", "50.0 %", "2 of 4")
        api.settle(job.job_id, [(0, 4, {"c": A @ B})])
        await shows(pilot, "✓ settled", "✓ accepted", "paid 27, fee 1 QU", "returned", "72 QU")
        await pilot.press("w")
        await shows(pilot, "Write the result")
        await fill(pilot, field_folder=str(tmp_path / "out"))
        await pilot.press("enter")
        await until(pilot, (tmp_path / "out" / "c.npy").exists)
        await shows(pilot, "Written:")
        np.testing.assert_array_equal(np.load(tmp_path / "out" / "c.npy"), A @ B)
        await pilot.press("v")
        await shows(pilot, "Receipt, checked on this machine", "signed all", api.key.public.hex())
        await pilot.press("escape")
        await shows(pilot, "✓ settled", "1 shown")


async def test_a_receipt_that_does_not_hold_is_refused(api: TuiApi, tmp_path: Path) -> None:
    job = api.add_job()
    api.settle(job.job_id, [(0, 4, {"c": A @ B})])
    api.stories[job.job_id].coordinator = type(api.key).generate()
    with FakeApi() as other:
        theirs = other.add_job()
        other.settle(theirs.job_id, [(0, 4, {"c": A @ B})])
        api.stories[job.job_id] = other.stories[theirs.job_id]
    async with market(api, tmp_path, LARGE, offers=MARKET) as (_, pilot, _line):
        await pilot.press("3")
        await shows(pilot, "✓ settled")
        await pilot.press("enter")
        await shows(pilot, "✓ accepted")
        await pilot.press("v")
        await shows(pilot, "the receipt does not hold", "keep it as evidence")


async def test_a_job_is_cancelled_after_a_question(api: TuiApi, tmp_path: Path) -> None:
    job = api.add_job()
    async with market(api, tmp_path, offers=MARKET) as (_, pilot, _line):
        await pilot.press("3")
        await shows(pilot, "◌ queued")
        await pilot.press("enter")
        await shows(pilot, "Job ")
        await pilot.press("c")
        await shows(pilot, "Stop this job?", "the rest of 100 QU returns")
        await pilot.press("escape")
        await gone(pilot, "Stop this job?")
        await pilot.press("c")
        await shows(pilot, "Stop this job?")
        await pilot.press("y")
        await shows(pilot, "✗ cancelled")
        assert api.jobs[job.job_id].reason is Reason.CANCELLED_BY_CONSUMER
        await pilot.press("a")
        await shows(pilot, "cannot be accepted", "while it is delivered")


async def test_a_delivered_result_is_accepted(api: TuiApi, tmp_path: Path) -> None:
    job = api.add_job()
    api.settle(job.job_id, [(0, 4, {"c": A @ B})])
    api.change(
        job.job_id, state=JobState.DELIVERED, reason=Reason.AWAITING_ACCEPTANCE, reason_text="accept it", owed_qu=28
    )
    async with market(api, tmp_path, LARGE, offers=MARKET) as (_, pilot, _line):
        await pilot.press("3")
        await shows(pilot, "■ delivered")
        await pilot.press("enter")
        await shows(pilot, "of it owed")
        await pilot.press("d")
        await shows(pilot, "Dispute this job's result", "A bond is staked")
        await pilot.press("ctrl+s")
        await shows(pilot, "a dispute needs a statement")
        await pilot.press("escape")
        await gone(pilot, "Dispute this job's result")
        await pilot.press("a")
        await shows(pilot, "28 QU are paid at once")
        await pilot.press("y")
        await shows(pilot, "✓ settled")


async def test_rentals_are_extended_and_stopped(api: TuiApi, tmp_path: Path) -> None:
    view = rental("NVIDIA H100")
    api.rentals[view.rental_id] = view
    async with market(api, tmp_path, offers=MARKET) as (_, pilot, _line):
        await pilot.press("4")
        await shows(pilot, "NVIDIA H100", "▶ active", "60,000")
        await pilot.press("enter")
        await shows(pilot, "answered last", view.rental_id)
        await pilot.press("escape")
        await gone(pilot, "answered last")
        await pilot.press("e")
        await shows(pilot, "How many minutes more")
        await pilot.press("ctrl+s")
        await shows(pilot, "60 minutes for at most 60,000 QU more")
        await pilot.press("y")
        await shows(pilot, " 70 ")
        await pilot.press("r")
        await shows(pilot, "[2 Run]")
        await shows(pilot, "rental")
        await pilot.press("4")
        await shows(pilot, "[4 Rentals]", "▶ active")
        await pilot.press("x")
        await shows(pilot, "Stop renting NVIDIA H100?")
        await pilot.press("y")
        await shows(pilot, "■ ended")
        assert api.rentals[view.rental_id].state is RentalState.ENDED
        await pilot.press("e")
        await shows(pilot, "this rental is over", "Rent another device")


async def test_lists_tell_none_yet_from_what_failed(api: TuiApi, tmp_path: Path) -> None:
    clock = Clock()
    async with market(api, tmp_path, clock=clock, offers=MARKET) as (app, pilot, _line):
        await pilot.press("3")
        await shows(pilot, "No jobs yet", "The Run screen (2)")
        api.trouble("GET", "/jobs", 500)
        clock.now_s += 10
        await shows(pilot, "HTTP status 500", "Check that")
        api.add_job()
        clock.now_s += 10
        await shows(pilot, "◌ queued")
        api.trouble("GET", "/jobs", 500)
        clock.now_s += 10
        await shows(pilot, "not updated:", "◌ queued")
        assert "Traceback" not in text(app)


@pytest.mark.parametrize(("name", "size"), [("run-80x24", SMALL), ("run-200x50", LARGE)])
async def test_how_the_composer_looks(name: str, size: tuple[int, int], api: TuiApi, tmp_path: Path) -> None:
    async with market(api, tmp_path, size, Clock(), offers=MARKET) as (app, pilot, _line):
        await pilot.press("2")
        await shows(pilot, "matmul")
        await _chosen(pilot, "matmul")
        await shows(pilot, "Matrix product", "b: float16")
        await until(pilot, lambda: "asking" not in text(app))
        await assert_screen(pilot, name)
