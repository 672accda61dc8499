# SPDX-License-Identifier: Apache-2.0
"""The devnet as a process: it starts, says so, refuses what it cannot use, and goes on where it was killed."""

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.support.devnet import Wallet, start_devnet

ANN, BOB = Wallet("ann"), Wallet("bob")
MOVES_S = 60.0


def _run(folder: Path, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    told = {"QUBIX_DATA_DIR": str(folder), "QUBIX_DEVNET_PORT": "0", "QUBIX_NETWORK": "devnet", **env}
    command = [sys.executable, "-m", "qubix_chain.devnet", *words]
    return subprocess.run(command, env=os.environ | told, capture_output=True, text=True, timeout=60, check=False)


def test_what_was_answered_survives_kill_9_and_it_goes_on(tmp_path: Path) -> None:
    process = start_devnet(tmp_path).wait_ready()
    try:
        assert process.info["network"] == "devnet"
        with httpx.Client(base_url=process.info["url"]) as http:
            http.post("/devnet/v1/faucet", json={"identity": ANN.identity, "amount": 1000}).raise_for_status()
            http.post("/devnet/v1/clock/step", json={"ticks": 4}).raise_for_status()
            tick = http.get("/live/v1/tick-info").json()["tickInfo"]["tick"]
            sent = [ANN.sign(BOB.key, amount, tick + 5) for amount in (5, 6, 7)]
            for one in sent:
                encoded = base64.b64encode(one.to_bytes()).decode()
                http.post("/live/v1/broadcast-transaction", json={"encodedTransaction": encoded}).raise_for_status()
            http.post("/devnet/v1/faults", json={"kind": "empty_tick", "rate": 0.001}).raise_for_status()
            before = http.get("/devnet/v1/status").json()
        process.kill()
        process = start_devnet(tmp_path).wait_ready()
        with httpx.Client(base_url=process.info["url"]) as http:
            after = http.get("/devnet/v1/status").json()
            assert after == before
            assert after["pending"] == 3
            http.post("/devnet/v1/clock/step", json={"ticks": 9}).raise_for_status()
            listed = http.post("/query/v1/getTransactionsForTick", json={"tickNumber": tick + 5}).json()
            assert [one["hash"] for one in listed] == [one.id for one in sent]
            assert http.get(f"/live/v1/balances/{BOB.identity}").json()["balance"]["balance"] == "18"
    finally:
        process.stop()


def test_its_clock_runs_until_it_is_killed_and_nothing_is_half_there(tmp_path: Path) -> None:
    """Killed while ticks are made as fast as they can be: each start finds whole ticks, one after another."""
    last = 0
    for _ in range(3):
        process = start_devnet(tmp_path, QUBIX_DEVNET_PAUSED="0", QUBIX_DEVNET_TICK_MS="10").wait_ready()
        try:
            with httpx.Client(base_url=process.info["url"]) as http:
                assert process.info["tick"] >= last
                http.post("/devnet/v1/faucet", json={"identity": ANN.identity, "amount": 3}).raise_for_status()
                end = time.monotonic() + MOVES_S
                while (now := http.get("/devnet/v1/status").json())["tick"] < process.info["tick"] + 10:
                    assert time.monotonic() < end
                assert int(now["supply"]) + int(now["burned"]) == int(now["minted"])
                last = now["archived_tick"]
        finally:
            process.kill()


def test_it_stops_on_sigterm_and_says_what_it_is(tmp_path: Path) -> None:
    process = start_devnet(tmp_path).wait_ready()
    assert process.stop() == 0
    assert "devnet.stopped" in process.tail()
    assert "Traceback" not in process.tail()
    helped = _run(tmp_path, "--help")
    assert helped.returncode == 0
    assert "QUBIX_DEVNET_TICK_MS" in helped.stdout


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"QUBIX_NETWORK": "main"}, "QUBIX_NETWORK"),
        ({"QUBIX_NETWORK": "test"}, "QUBIX_QUBIC_URL"),
        ({"QUBIX_DEVNET_TICK_MS": "0"}, "QUBIX_DEVNET_TICK_MS"),
        ({"QUBIX_DEVNET_FAULTS": "nonsense=1"}, "empty_tick"),
        ({"QUBIX_DEVNET_FAULTS": "empty_tick=7"}, "between 0 and 1"),
    ],
)
def test_settings_of_no_use_end_it_with_2(tmp_path: Path, env: dict[str, str], told: str) -> None:
    done = _run(tmp_path, **env)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_one_folder_one_seed_and_one_port_belong_to_one_devnet(tmp_path: Path) -> None:
    process = start_devnet(tmp_path / "one").wait_ready()
    try:
        port = process.info["url"].rsplit(":", 1)[1]
        for folder, env, told in (
            (tmp_path / "one", {}, "another devnet"),
            (tmp_path / "two", {"QUBIX_DEVNET_PORT": port}, "QUBIX_DEVNET_PORT"),
        ):
            done = _run(folder, **env)
            assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
            assert told in done.stderr
    finally:
        process.stop()
    done = _run(tmp_path / "one", QUBIX_DEVNET_SEED="5")
    assert done.returncode == 1
    assert "QUBIX_DEVNET_SEED" in done.stderr


def test_qubix_devnet_is_a_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qubix", "devnet", "--help"],
        env=os.environ | {"QUBIX_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert "QUBIX_DEVNET_PORT" in done.stdout


def test_the_ready_line_is_one_json_object(tmp_path: Path) -> None:
    process = start_devnet(tmp_path).wait_ready()
    process.stop()
    assert json.loads(json.dumps(process.info)).keys() == {"process", "pid", "url", "network", "tick"}
