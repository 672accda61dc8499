# SPDX-License-Identifier: Apache-2.0
"""The command line: what it prints, how it exits, how fast it starts."""

import datetime
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from qubix import errors
from qubix.cli import COMMANDS, PROCESSES, main, readings, rows, shown
from qubix.cli.exits import explain
from qubix.cli.output import print_table
from qubix.cli.pairs import param_value, split
from qubix.cli.tables import print_offers, print_readings
from qubix.processes import modules
from qubix_protocol.api import JobView, ListingView
from qubix_protocol.messages import Sample
from qubix_protocol.query import FIELDS
from qubix_protocol.states import AttemptState, DeviceKind, Isolation, JobState, Reason
from tests.support.fake_api import TOKEN, FakeApi, listing
from tests.support.receipt_chain import Story

A = np.arange(12, dtype=np.float32).reshape(4, 3)
B = np.arange(6, dtype=np.float32).reshape(3, 2)
Qubix = Callable[..., Result]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as found:
        yield found


@pytest.fixture
def env(api: FakeApi, tmp_path: Path) -> dict[str, str]:
    return {
        "QUBIX_COORDINATOR_URL": api.url,
        "QUBIX_TOKEN": TOKEN,
        "QUBIX_DATA_DIR": str(tmp_path / "data"),
        "QUBIX_TRIES_MAX": "2",
    }


@pytest.fixture
def qubix(env: dict[str, str]) -> Qubix:
    def run(*words: str, **more: str) -> Result:
        return CliRunner().invoke(main, list(words), env=env | more)

    return run


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    np.save(tmp_path / "a.npy", A)
    np.save(tmp_path / "b.npy", B)
    return ["-i", f"a={tmp_path / 'a.npy'}", "-i", f"b={tmp_path / 'b.npy'}"]


def test_a_device_says_what_its_jobs_run_in() -> None:
    one = listing("a", 1)
    assert dict(rows.offer_pairs(one))["jobs run in"] == "a limited process"
    boxed = msgspec.structs.replace(one, isolation=Isolation.BOX)
    assert dict(rows.offer_pairs(boxed))["jobs run in"] == "a box"


def test_offers_are_shown_in_the_order_that_was_asked(qubix: Qubix) -> None:
    found = qubix("offers", "search", "-o", "price-", "--json")
    assert [one["rate_qu_per_h"] for one in json.loads(found.output)] == [300, 200, 100]
    table = qubix("offers", "search").output
    assert table.index("device b") < table.index("device c") < table.index("device a")
    assert "1,234 of 1,234" in table


def test_no_match_is_told_from_nothing_there(qubix: Qubix) -> None:
    found = qubix("offers", "search", "--kind", "cuda")
    assert "0 found among 3: rentable=true kind=cuda (by price)" in found.output
    assert "None of the 3 offers" in found.output
    assert found.exit_code == 0


def test_a_query_line_finds_what_it_says_and_shows_its_defaults(qubix: Qubix) -> None:
    found = qubix("offers", "search", "gpu_ram>=8", "price<250", "-o", "price-", "--json")
    assert [one["rate_qu_per_h"] for one in json.loads(found.output)] == [200, 100]
    shown = qubix("offers", "search", "price<250 rentable=any").output
    assert "device b" in shown
    assert "device a" not in shown
    assert "2 found among 3: price<250QU/h rentable=any (by price)" in shown
    assert "rentable=true price<250QU/h" in qubix("offers", "search", "price<250").output
    told = json.loads(qubix("offers", "search", "price<250", "--explain", "--json").output)
    assert (told["query"], told["total"], told["everything"]) == ("price<250QU/h", 2, 3)


def test_an_error_in_a_query_line_shows_its_place(qubix: Qubix) -> None:
    found = qubix("offers", "search", "price<5 gpu_rm>=8")
    assert found.exit_code == 2
    lines = found.stderr.splitlines()
    assert lines[0] == "qubix: QUERY, column 9: there is no field 'gpu_rm'"
    assert lines[1:3] == ["  price<5 gpu_rm>=8", "          ^^^^^^"]
    assert "gpu_ram" in lines[3]
    wrong = qubix("offers", "search", "-o", "price, scor-")
    assert wrong.exit_code == 2
    assert "         ^^^^" in wrong.stderr


def test_what_can_be_searched_by_is_listed(qubix: Qubix) -> None:
    names = [one["name"] for one in json.loads(qubix("offers", "fields", "--json").output)]
    assert names == list(FIELDS)
    assert "num_gpus" in qubix("offers", "fields").output


def test_a_kernel_is_shown_in_words(qubix: Qubix) -> None:
    text = " ".join(qubix("kernels", "show", "knn").output.split())
    assert "kernel knn, version" in text
    assert "checked before anybody is paid" in text
    assert "parameters name k" in text
    assert "True" not in text
    assert json.loads(qubix("kernels", "show", "knn", "--json").output)["verifier"] is True


def test_a_job_from_submission_to_receipt(qubix: Qubix, api: FakeApi, files: list[str], tmp_path: Path) -> None:
    made = qubix("job", "submit", "matmul", *files, "--cap", "100", "--json")
    job_id = json.loads(made.output)["job_id"]
    api.settle(job_id, [(0, 4, {"c": A @ B})])
    watched = qubix("job", "watch", job_id)
    assert watched.exit_code == 0
    assert "settled    100.0 %" in watched.output
    assert "returned 72" in watched.output
    assert json.loads(qubix("job", "show", job_id, "--json").output)["paid_qu"] == 27
    fetched = qubix("job", "result", job_id, "-o", str(tmp_path / "out"))
    assert fetched.exit_code == 0, fetched.output
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "c.npy"), A @ B)
    receipt = qubix("job", "receipt", job_id)
    assert "provider and coordinator" in receipt.output
    assert "checked on this machine" in receipt.output
    _kept_receipt_is_checked_offline(qubix, api, job_id, tmp_path)


def _kept_receipt_is_checked_offline(qubix: Qubix, api: FakeApi, job_id: str, folder: Path) -> None:
    """B3: a file, public keys, and nothing else; the exit code tells."""
    kept = str(folder / "job.receipt")
    assert qubix("job", "receipt", job_id, "--out", kept).exit_code == 0
    asked = len(api.seen)
    offline = qubix("job", "receipt", "--verify", kept, "--result", str(folder / "out"))
    assert offline.exit_code == 0, offline.output
    assert "is the one that was checked and paid" in offline.output
    alone = qubix("job", "receipt", "--verify", kept, "--result", str(folder / "out" / "c.npy"), "--json")
    assert json.loads(alone.output)["paid_qu"] == 27
    given = qubix("job", "receipt", "--verify", kept, "--coordinator-key", api.key.public.hex())
    assert given.exit_code == 0, given.output
    stranger = qubix("job", "receipt", "--verify", kept, "--coordinator-key", "00" * 32)
    assert (stranger.exit_code, "no key that you trust" in stranger.output) == (1, True)
    np.save(folder / "other.npy", (A @ B) + 1)
    other = qubix("job", "receipt", "--verify", kept, "--result", str(folder / "other.npy"))
    assert (other.exit_code, "not what was checked and paid" in other.output) == (1, True)
    damaged = folder / "damaged.receipt"
    damaged.write_bytes(Path(kept).read_bytes()[:-3])
    assert qubix("job", "receipt", "--verify", str(damaged), "--coordinator-key", api.key.public.hex()).exit_code == 1
    for bad in (
        ["--verify", str(folder / "none")],
        [job_id, "--verify", kept],
        [],
        [job_id, "--open"],
        ["--verify", kept, "--coordinator-key", "short"],
        ["--verify", kept, "--result", str(folder / "nowhere")],
    ):
        refused = qubix("job", "receipt", *bad)
        assert refused.exit_code == 2, refused.output
        assert "remedy" in refused.output
    assert len(api.seen) == asked


def test_a_receipt_of_a_coordinator_never_met_is_not_judged_by_its_own_word(qubix: Qubix, tmp_path: Path) -> None:
    story = Story().opened()
    story.attempt([(0, 4, b"output")])
    kept = tmp_path / "job.receipt"
    kept.write_bytes(story.file)
    unknown = qubix("job", "receipt", "--verify", str(kept))
    assert unknown.exit_code == 2
    assert story.coordinator.public.hex() in unknown.output
    key = ("--coordinator-key", story.coordinator.public.hex())
    still = qubix("job", "receipt", "--verify", str(kept), *key)
    assert (still.exit_code, "was not over" in still.output) == (1, True)
    assert qubix("job", "receipt", "--verify", str(kept), *key, "--open").exit_code == 0


def test_a_running_job_is_shown_with_the_readings_of_its_device(qubix: Qubix, api: FakeApi) -> None:
    """R5.5."""
    job = api.add_job()
    running = msgspec.structs.replace(
        api.settle(job.job_id, [(0, 4, {"c": A @ B})]).attempts[0],
        state=AttemptState.RUNNING,
        listing_id=listing("b", 1).listing_id,
    )
    api.change(job.job_id, state=JobState.RUNNING, attempts=(running,))
    found = qubix("job", "show", job.job_id).output
    assert "GiB used" in found
    assert "device b" in found
    assert "device a" not in found
    api.change(
        job.job_id, state=JobState.SETTLED, attempts=(msgspec.structs.replace(running, state=AttemptState.ACCEPTED),)
    )
    assert "GiB used" not in qubix("job", "show", job.job_id).output


def test_a_failed_job_fails_the_command(qubix: Qubix, api: FakeApi) -> None:
    job = api.add_job()
    api.change(job.job_id, state=JobState.FAILED, reason=Reason.EXPIRED, reason_text="not finished in time")
    found = qubix("job", "watch", job.job_id)
    assert found.exit_code == 1
    assert "not finished in time" in found.output
    as_json = qubix("job", "watch", job.job_id, "--json")
    assert msgspec.json.decode(as_json.stdout, type=JobView).state is JobState.FAILED


def test_a_job_is_called_by_an_end_of_its_id(qubix: Qubix, api: FakeApi) -> None:
    ids = [f"{part}-4000-8000-{at:012}" for at, part in enumerate(["abcdabcd-1111", "abcdabcd-2222", "ef013333-3333"])]
    for job_id in ids:
        api.jobs[job_id] = msgspec.structs.replace(api.add_job(), job_id=job_id)
    for _ in range(250):
        api.add_job()  # newer ones: its page is not the first
    for named in ("abcdabcd-1", "ABCDABCD-1111-", ids[0], "…0000000000"):
        assert json.loads(qubix("job", "show", named, "--json").output)["job_id"] == ids[0], named
    several = qubix("job", "cancel", "abcdabcd")
    assert several.exit_code == 2
    assert "2 of your jobs are 'abcdabcd'" in several.output
    assert all(job_id in several.output for job_id in ids[:2])
    assert not any(one.method == "POST" for one in api.seen)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["job", "submit", "nothing", "--cap", "5"], "nothing"),
        (["job", "submit", "matmul", "--cap", "5"], "'a'"),
        (["job", "submit", "matmul"], "--cap"),
        (["job", "submit", "matmul", "--cap", "0"], "--cap"),
        (["job", "submit", "matmul", "--cap", "5", "--spread", "0"], "--spread"),
        (["job", "submit", "matmul", "--cap", "5", "-i", "a"], "NAME=VALUE"),
        (["job", "submit", "knn", "--cap", "5", "-p", "k=1", "-p", "k=2"], "given twice"),
        (["job", "submit", "matmul", "--cap", "5", "-i", "a=none.npy", "-i", "b=none.npy"], "a .npy file"),
        (["job", "show", "no-uuid"], "no UUID"),
        (["job", "show", "…"], "no UUID"),
        (["job", "show", "abad1dea-"], "none of your latest 2,000 jobs is 'abad1dea-'"),
        (["job", "show", "7d444840-9dc0-11d1-b245-5ffdce74fad2"], "remedy"),
        (["offers", "search", "-o", "pric"], "Did you mean price"),
        (["offers", "search", "--kind", "abacus"], "cuda"),
        (["kernels", "show"], "NAME"),
        (["kernels", "show", "nothing"], "matmul"),
        (["rent", "start", "60", "--listing", "cpu-", "--yes"], "3 devices are called 'cpu-'"),
        (["rent", "start", "60", "--listing", "nobody", "--yes"], "--listing"),
        (["nonsense"], "nonsense"),
    ],
)
def test_bad_usage_exits_2_and_names_what_is_wrong(qubix: Qubix, words: list[str], named: str) -> None:
    found = qubix(*words)
    assert found.exit_code == 2, found.output
    assert named in found.output
    assert "Traceback" not in found.output


def test_bad_input_for_the_coordinator_exits_2(qubix: Qubix, files: list[str]) -> None:
    found = qubix("job", "submit", "matmul", *files, "--cap", "5000")
    assert found.exit_code == 2
    assert "cap_qu" in found.output
    assert "Deposit QU" in found.output
    assert qubix("wallet", "show", QUBIX_TOKEN="wrong").exit_code == 2
    assert qubix("wallet", "show", QUBIX_TIMEOUT_S="soon").exit_code == 2


def test_an_absent_coordinator_exits_1_with_the_remedy(qubix: Qubix) -> None:
    found = qubix("wallet", "show", QUBIX_COORDINATOR_URL="http://127.0.0.1:9", QUBIX_TRIES_MAX="1")
    assert found.exit_code == 1
    assert "qubix up" in found.output


def test_the_wallet(qubix: Qubix, api: FakeApi) -> None:
    assert qubix("wallet", "credit", "500").exit_code == 2
    shown_ = json.loads(qubix("wallet", "show", "--json").output)
    assert shown_["balance_qu"] == 1_000
    assert len(shown_["order_key"]) == 64


def test_earnings_by_week_in_a_time_zone(qubix: Qubix, api: FakeApi) -> None:
    found = qubix("wallet", "earnings", "--by", "week", "--tz", "Asia/Kathmandu", "--since", "2026-11-23", "--json")
    told = json.loads(found.output)
    assert (told["by"], told["whole"]["net_qu"]) == ("week", 800)
    midnight = datetime.datetime(2026, 11, 23, tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=45)))
    assert told["periods"][0]["since_ms"] == midnight.timestamp() * 1000
    shown_ = qubix("wallet", "earnings").output
    assert "2026-11-23" in shown_
    assert "800" in shown_
    assert qubix("wallet", "earnings", "--tz", "Nowhere/Else", "--since", "2026-11-23").exit_code == 2
    assert qubix("wallet", "earnings", "--by", "year").exit_code == 2


def test_history_is_drawn_with_its_gaps(qubix: Qubix, api: FakeApi) -> None:
    listing_id = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
    text = qubix("offers", "history", listing_id, "--hours", "1").output
    assert "▁▂▃    ▆▇█" in text
    assert "7,500" in text
    assert "draining" in text
    assert json.loads(qubix("offers", "history", listing_id, "--json").output)["source"] == "minute"
    assert qubix("offers", "history", "nothing").exit_code == 2
    assert "\n".join(text.splitlines()[1:]) in qubix("offers", "history", "cpu-a", "--hours", "1").output
    several = qubix("offers", "history", "cpu-")
    assert several.exit_code == 2
    assert "3 devices are called 'cpu-': cpu-a, cpu-b, cpu-c" in several.output


def test_work_of_a_provider(qubix: Qubix, api: FakeApi) -> None:
    assert json.loads(qubix("wallet", "work", "--json").output)["work"][0]["paid_qu"] == 6
    assert "rental" in qubix("wallet", "work").output


# As a process ---------------------------------------------------------------------------------------------------------


def run(env: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "qubix", *words]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["offers", "search"], 0),
        (["job", "submit", "nothing", "--cap", "1"], 2),
        (["job", "show", "7d444840-9dc0-11d1-b245-5ffdce74fad2"], 2),
        (["--help"], 0),
    ],
)
def test_exit_codes_of_the_process(env: dict[str, str], words: list[str], status: int) -> None:
    done = run(env, *words)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout


def test_no_color_is_obeyed_even_when_colours_are_forced(env: dict[str, str]) -> None:
    done = run(env | {"NO_COLOR": "1", "FORCE_COLOR": "1", "TERM": "xterm"}, "offers", "search")
    assert done.returncode == 0
    assert "\x1b[3" not in done.stdout


def test_help_imports_neither_numpy_nor_the_network() -> None:
    script = "import sys; sys.argv = ['qubix', '--help']; import atexit; from qubix.cli import main\n"
    script += "try:\n    main()\nexcept SystemExit:\n    pass\n"
    script += "print(sorted({'numpy', 'httpx', 'rich', 'websockets', 'cryptography', 'msgspec'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(name in done.stdout for name in (*COMMANDS, *PROCESSES))


def test_processes_are_found_by_entry_point() -> None:
    assert set(modules()) == set(PROCESSES)


WORDS = {"worker": ("status",)}
"""What a process must be told to do."""


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_a_process_says_what_it_is_and_starts_nothing_for_words_it_does_not_know(name: str, tmp_path: Path) -> None:
    env = {"QUBIX_DATA_DIR": str(tmp_path / "data")}
    told = run(env, name, "--help")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(f"usage: qubix {name}")
    # An installed worker knows the folder that it was installed into, and nothing else.
    assert ("  QUBIX_DATA_DIR\n" in told.stdout) is (name != "worker")
    refused = run(env, name, *WORDS.get(name, ()), "--nonsense")
    assert refused.returncode == 2
    assert "unrecognized arguments: --nonsense" in refused.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["pair"])
def test_what_does_not_exist_yet_is_no_command(name: str) -> None:
    done = run({}, name)
    assert done.returncode == 2
    assert f"No such command '{name}'" in done.stderr


# Pieces ---------------------------------------------------------------------------------------------------------------


def test_every_error_of_the_sdk_is_explained() -> None:
    usage = explain(errors.BadUsage("cap_qu", "too small", "Give more"))
    assert usage == ("qubix: too small\n  field: cap_qu\n  remedy: Give more", 2)
    assert explain(ValueError("a defect")) is None
    told = explain(errors.Conflict("not now", status=409, remedy="Wait"))
    assert told == ("qubix: not now\n  remedy: Wait", 2)
    unknown = explain(errors.NotFound("no such job", status=404, field="job_id", remedy="GET /jobs"))
    assert unknown is not None
    assert "qubix job list" in unknown[0]


def test_a_stranger_is_told_to_sign_in_in_two_lines(qubix: Qubix) -> None:
    found = qubix("job", "list", QUBIX_TOKEN="")
    said = found.output.splitlines()
    assert (found.exit_code, said[0], len(said)) == (2, "qubix: no such token", 2)
    assert "`qubix wallet login`" in said[1]


def test_pairs() -> None:
    assert split("-p", ["k=5", "name=a=b"]) == {"k": "5", "name": "a=b"}
    assert [param_value(text) for text in ("5", "0.5", "true", "word")] == [5, 0.5, True, "word"]
    with pytest.raises(errors.BadUsage):
        split("-p", ["k="])


def test_ctrl_c_stops_the_watching_and_says_that_the_job_goes_on(env: dict[str, str], api: FakeApi) -> None:
    job = api.add_job()
    command = [sys.executable, "-m", "qubix", "job", "watch", job.job_id]
    # As a terminal would start it: a shell's background job inherits that SIGINT is ignored.
    start = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", start, *command],
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert str(job.state) in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1
    assert told.strip().startswith("The job goes on.")
    assert f"qubix job cancel {job.job_id}" in told


def test_a_full_disk_is_told_without_a_traceback(env: dict[str, str]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "qubix", "offers", "search"]
        done = subprocess.run(
            command, env=os.environ | env, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr == b"qubix: cannot write the output: No space left on device\n"


def drawn(columns: tuple[str, ...], lines: list[list[str]], width: int, **how: Any) -> str:
    out = Console(file=io.StringIO(), width=width, color_system=None)
    print_table(columns, lines, to=out, **how)
    text: str = out.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    return text


def test_a_table_that_is_too_wide_leaves_out_what_can_be_spared_and_says_so() -> None:
    columns, lines = ("id", "region", "note", "provider"), [["one", "local", "", "12D3KooWlonglonglongtail"]]
    how: dict[str, Any] = {"spare": ("note", "region"), "shorten": {"provider": shown.peer}}
    assert "12D3KooWlonglonglongtail" in drawn(columns, lines, 60, **how)
    short = drawn(columns, lines, 30, **how)
    assert "…" in short
    assert "local" in short
    narrow = drawn(columns, lines, 22, **how)
    assert "local" not in narrow
    assert "Too narrow here for:" in narrow
    assert "note" not in narrow, "an empty column is not missed"


def test_a_table_that_fits_in_no_way_becomes_a_list() -> None:
    text = drawn(("first", "second"), [["a" * 20, "b" * 20]], 30)
    assert [line.split() for line in text.splitlines() if line] == [["first", "a" * 20], ["second", "b" * 20]]


def test_the_market_is_readable_at_80_columns_and_calls_a_cpu_a_cpu() -> None:
    cpu = msgspec.structs.replace(listing("x", 3_600_000), kind=DeviceKind.CPU, model="AMD EPYC")
    gpu = msgspec.structs.replace(listing("y", 9_000_000), kind=DeviceKind.CUDA, model="NVIDIA H200")
    out = Console(file=io.StringIO(), width=80, color_system=None)
    print_offers([cpu, gpu], to=out)
    lines: list[str] = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    assert sum("AMD EPYC (CPU)" in line and "3,600,000" in line for line in lines) == 1
    assert sum("NVIDIA H200 " in line and "(CPU)" not in line for line in lines) == 1


def test_readings_are_readable_at_80_columns() -> None:
    """R5.2: use, heat, memory, power, clock, and what slows the card down, each with its age."""
    sample = Sample(
        at_ms=1,
        utilisation_pct=93,
        memory_used_bytes=20 * 2**30,
        memory_total_bytes=24 * 2**30,
        temperature_c=77,
        power_mw=410_000,
        power_limit_mw=450_000,
        clock_mhz=2520,
        throttle=("idle", "power_cap", "thermal"),
        foreign_processes=2,
        processes=3,
    )
    card = msgspec.structs.replace(
        listing("12D3KooWabcdefghijklmnop", 9), kind=DeviceKind.CUDA, model="NVIDIA GeForce RTX 4090", metrics=sample
    )
    fresh, old = (msgspec.structs.replace(card, metrics_age_ms=age, stale=age > 60_000) for age in (3_200, 75_000))
    out = Console(file=io.StringIO(), width=80, color_system=None)
    print_readings([fresh, old, listing("silent", 1)], to=out)
    lines: list[str] = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    (line,) = (line for line in lines if " 3 s" in line)
    for told in ("GeForce RTX 4090", "93 %", "77", "20.0/24.0", "410", "2,520", "power cap +1"):
        assert told in line
    assert sum("stale" in line for line in lines) == 1, "P9"
    wide = Console(file=io.StringIO(), width=200, color_system=None)
    print_readings([fresh, old], to=wide)
    text: str = wide.file.getvalue()  # type: ignore[attr-defined]
    for told in (
        "NVIDIA GeForce RTX 4090",
        "410/450",
        "power cap, thermal",
        "75 s (stale)",
        "12D3KooWabcdefghijklmnop",
    ):
        assert told in text
    told_in_full = dict(readings.pairs(fresh))
    assert told_in_full["processes"] == "3, 2 of them not the node's"
    assert (told_in_full["read"], told_in_full["fan"]) == ("3 s ago", "")


def test_one_device_is_shown_in_full_by_any_of_its_names(qubix: Qubix) -> None:
    (one,) = json.loads(qubix("offers", "show", "cpu-b", "--json").output)
    assert one["model"] == "device b"
    assert set(one) == {field.name for field in msgspec.structs.fields(ListingView)}
    for name in ("cpu-b", "b", one["listing_id"][:13]):
        assert "device b" in qubix("offers", "show", name).output
    assert "device a" in qubix("offers", "show", "cpu-").output, "all that begin so"
    found = qubix("offers", "show", "nobody")
    assert (found.exit_code, "nobody" in found.output) == (2, True)


def test_a_device_is_shown_with_its_score_and_what_its_node_found(qubix: Qubix) -> None:
    shown_b = " ".join(qubix("offers", "show", "cpu-b").output.split())
    assert "1,235 GFLOP/s of float32 matmul" in shown_b
    assert "failed" in shown_b
    assert "Free disk: 1.0. Free some." in shown_b
    assert "none yet" in " ".join(qubix("offers", "show", "cpu-a").output.split())


def test_a_statement_names_the_job_and_spares_the_rest_of_the_cause() -> None:
    assert shown.cause("hold:7d444840-9dc0-11d1-b245-5ffdce74fad2:0") == "7d444840-9dc0-11d1-b245-5ffdce74fad2"
    assert shown.cause("development_credit:1:2") == ""


def test_amounts_have_separators() -> None:
    assert shown.qu(1_234_567) == "1,234,567"
    assert rows.offer(listing("x", 5_000_000))[2] == "5,000,000"
