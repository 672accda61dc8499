# SPDX-License-Identifier: Apache-2.0
"""`qubix up` and `qubix demo` as a person runs them: what they say, how they exit, and that nothing is left."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from qubix import Client
from tests.support.chain_market import wait_for
from tests.support.funds import fund_by_faucet
from tests.support.market import Process

RUN_S = 600
"""Ten times and more what a demonstration takes."""
STOP_S = 10.0
GONE_S = 60.0
OUTSIDE = {name: value for name, value in os.environ.items() if not name.startswith(("QUBIX_", "DATABASE_URL"))}


def qubix(*words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "qubix", *words]
    return subprocess.run(command, env=OUTSIDE | env, capture_output=True, text=True, timeout=RUN_S, check=False)


def left(path: Path) -> list[str]:
    """Processes that know the folder by their arguments or their environment, this one apart."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and str(path) in " ".join((*process.cmdline(), *process.environ().values())):
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def wait_gone(path: Path) -> None:
    end = time.monotonic() + GONE_S
    while (still := left(path)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not still


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A short, reachable path: sockets have short names, and the database may run as another user."""
    path = Path(tempfile.mkdtemp(prefix="qx-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


class Up:
    """A market that `qubix up` keeps."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "up"
        words = ["-m", "qubix", "up", "--data-dir", str(self.folder), "--port", "0", "--browser"]
        env = dict.fromkeys(os.environ.keys() - OUTSIDE.keys(), "") | {"QUBIX_DEVNET_TICK_MS": "100"}
        self.opened = place / "opened"
        browser = place / "browser"
        browser.write_text(f'#!/bin/sh\necho "$1" > {self.opened}.new && mv {self.opened}.new {self.opened}\n')
        browser.chmod(0o755)
        env["BROWSER"] = str(browser)
        self.process = Process("up", words, env, place / "up.log")
        self.process.wait_ready()

    def qubix(self, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
        known = {"QUBIX_DATA_DIR": str(self.folder), "QUBIX_COORDINATOR_URL": self.process.info["url"]}
        return qubix(*words, **(known | env))


@pytest.fixture(scope="module")
def up(place: Path) -> Iterator[Up]:
    """One market for all of the module; the last test stops it."""
    found = Up(place)
    yield found
    if found.process.running:
        found.process.stop()


def test_the_demonstration_shows_it_all_and_leaves_nothing(place: Path) -> None:
    temporary = place / "tmp"
    temporary.mkdir(mode=0o755)
    done = qubix("demo", "--json", TMPDIR=str(temporary))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [job["kernel"] for job in found["jobs"]] == ["knn", "matmul"]
    for job in found["jobs"]:
        assert job["verdict"] == "accepted"
        assert job["receipts_verified"] == job["signed_by_both"] == 1
        assert job["settled_qu"] > 0
        assert job["settled_qu"] + job["fee_qu"] + job["returned_qu"] == job["held_qu"]
        assert job["model"].endswith("(CPU)") == (found["offers"][0]["kind"] == "cpu")
    assert found["jobs"][0]["found"]["accuracy"] > 0.9
    chain = found["chain"]
    moves = [chain[name] for name in ("funding", "deposit", "withdrawal")]
    assert all(re.fullmatch("[a-z]{60}", one["tx_id"]) for one in moves)
    assert len({one["tx_id"] for one in moves}) == 3
    assert moves[0]["tick"] < moves[1]["tick"] < moves[2]["tick"]
    assert moves[0]["destination"] == moves[1]["source"] == moves[2]["destination"] == chain["wallet"]
    assert chain["wallet"] not in (moves[1]["destination"], moves[2]["source"])
    assert (moves[1]["amount_qu"], moves[2]["amount_qu"]) == (1_000_000, 250_000)
    assert chain["network"] == "devnet"
    assert found["audit"]["clean"] is True
    assert found["audit"]["violations"] == []
    wait_gone(temporary)
    assert list(temporary.iterdir()) == []


def test_the_demonstration_says_at_once_that_only_a_devnet_has_a_faucet() -> None:
    for network in ("main", "test"):
        done = qubix("demo", QUBIX_NETWORK=network)
        assert done.returncode == 2
        assert "QUBIX_NETWORK" in done.stderr
        assert done.stdout == ""


def test_a_setting_that_a_part_cannot_use_is_bad_usage_of_up(place: Path) -> None:
    for name, value in (("QUBIX_NETWORK", "nonsense"), ("DATABASE_URL", "nonsense")):
        done = qubix("up", "--data-dir", str(place / "bad"), "--port", "0", **{name: value})
        assert done.returncode == 2
        assert f"qubix: {name}" in done.stderr
        assert "Traceback" not in done.stderr + done.stdout
    wait_gone(place / "bad")


def test_a_market_of_another_network_is_told_to_name_it(place: Path) -> None:
    done = qubix("up", "--data-dir", str(place / "main"), "--port", "0", QUBIX_NETWORK="main")
    assert done.returncode == 2
    assert "Set QUBIX_QUBIC_URL" in done.stderr
    wait_gone(place / "main")


def test_up_starts_a_devnet_and_says_so(up: Up) -> None:
    assert up.process.info["network"] == "devnet"
    with urllib.request.urlopen(up.process.info["qubic_url"] + "/devnet/v1/status", timeout=60) as answer:
        assert json.load(answer)["network"] == "devnet"
    assert "Qubic network: devnet, play money" in up.process.tail()


def test_its_page_is_opened_in_the_browser(up: Up) -> None:
    wait_for("the browser", up.opened.exists)
    assert up.opened.read_text() == up.process.info["url"] + "\n"


def test_a_second_up_on_the_folder_is_refused_and_the_first_goes_on(up: Up) -> None:
    second = qubix("up", "--data-dir", str(up.folder), "--port", "0")
    assert second.returncode == 1
    assert f"process {up.process.popen.pid}" in second.stderr
    assert up.qubix("offers", "search").returncode == 0


def test_a_port_in_use_is_told_with_its_remedy(up: Up, place: Path) -> None:
    port = up.process.info["url"].rsplit(":", 1)[1]
    done = qubix("up", "--data-dir", str(place / "other"), "--port", port)
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "QUBIX_HTTP_PORT" in done.stderr
    wait_gone(place / "other")


def test_a_job_by_hand_from_deposit_to_audit(up: Up, place: Path) -> None:
    inputs = {name: np.random.default_rng(7).random((64, 64), dtype=np.float32) for name in "ab"}
    for name, array in inputs.items():
        np.save(place / f"{name}.npy", array)
    with Client(up.process.info["url"], data_dir=up.folder) as client:
        paid = fund_by_faucet(client, up.process.info["qubic_url"], 5000)
    assert json.loads(up.qubix("wallet", "show", "--json").stdout)["balance_qu"] == 5000
    assert paid in up.qubix("wallet", "statement", "--json").stdout
    given = [word for name in inputs for word in ("-i", f"{name}={place / name}.npy")]
    made = up.qubix("job", "submit", "matmul", *given, "--cap", "200", "--watch", "--json")
    assert made.returncode == 0, made.stderr
    job = json.loads(made.stdout)
    fetched = up.qubix("job", "result", job["job_id"], "-o", str(place / "out"))
    assert fetched.returncode == 0, fetched.stderr
    np.testing.assert_allclose(np.load(place / "out" / "c.npy"), inputs["a"] @ inputs["b"], rtol=1e-4)
    assert "provider and coordinator" in up.qubix("job", "receipt", job["job_id"]).stdout
    again = up.qubix("job", "cancel", job["job_id"])
    assert again.returncode == 2
    assert "already" in again.stderr
    audit = up.qubix("audit")
    assert audit.returncode == 0
    assert "ledger clean" in audit.stdout


def test_input_that_a_kernel_refuses_fails_the_command_and_returns_the_hold(up: Up, place: Path) -> None:
    np.save(place / "nan.npy", np.full((64, 64), np.nan, dtype=np.float32))
    given = ["-i", f"a={place / 'nan.npy'}", "-i", f"b={place / 'nan.npy'}"]
    done = up.qubix("job", "submit", "matmul", *given, "--cap", "200", "--watch", "--json")
    assert done.returncode == 1
    assert "NaN" in done.stderr
    job = json.loads(done.stdout)
    assert (job["state"], job["reason"], job["returned_qu"]) == ("failed", "bad_input", 200)


@pytest.mark.parametrize(
    ("words", "env", "status", "told"),
    [
        (["job", "submit", "nope", "--cap", "1"], {}, 2, "matmul"),
        (["job", "submit", "knn", "--cap", "1"], {}, 2, "needs the array"),
        (["wallet", "credit", "5"], {}, 2, "No such command"),
        (["wallet", "show"], {"QUBIX_TOKEN": "qx_nobody"}, 2, "QUBIX_TOKEN"),
        (["wallet", "show"], {"QUBIX_COORDINATOR_URL": "http://127.0.0.1:9", "QUBIX_TRIES_MAX": "1"}, 1, "qubix up"),
        (["job", "show", "7d444840-9dc0-11d1-b245-5ffdce74fad2"], {}, 2, "qubix job list"),
        (["kernels", "show", "matmul"], {}, 0, ""),
    ],
)
def test_exit_codes(up: Up, words: list[str], env: dict[str, str], status: int, told: str) -> None:
    done = up.qubix(*words, **env)
    assert done.returncode == status, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_gets_no_traceback(up: Up) -> None:
    for words in (["audit"], ["kernels", "list", "--json"]):
        command = [sys.executable, "-m", "qubix", *words]
        read, write = os.pipe()
        os.close(read)
        env = OUTSIDE | {"QUBIX_DATA_DIR": str(up.folder), "QUBIX_COORDINATOR_URL": up.process.info["url"]}
        done = subprocess.run(command, env=env, stdout=write, stderr=subprocess.PIPE, timeout=RUN_S, check=False)
        os.close(write)
        assert done.stderr == b""


def test_sigterm_stops_all_of_it_in_time(up: Up) -> None:
    """The module's last test: it stops the market that the others used."""
    began = time.monotonic()
    assert up.process.stop() == 0
    assert time.monotonic() - began < STOP_S
    wait_gone(up.folder)
    assert "nothing is left running" in up.process.tail()
    for log in (up.folder / "logs").glob("*.log"):
        assert "Traceback" not in log.read_text(), log.name
