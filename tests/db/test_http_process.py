# SPDX-License-Identifier: Apache-2.0
"""The coordinator as a process: ready line, its own or a given database, memory, a clean stop, told mistakes."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from qubix_coordinator.http.sockets import GOING_AWAY
from tests.support_pg import clean_environment, reachable_folder

READY_S, STOP_S = 60, 60
RESIDENT_BYTES_MAX = 200 * 1000 * 1000
COMMAND = [sys.executable, "-m", "qubix_coordinator"]


def start(stderr: int | None = None, **env: str) -> tuple["subprocess.Popen[bytes]", dict[str, object]]:
    read_fd, write_fd = os.pipe()
    process = subprocess.Popen(
        COMMAND,
        env=clean_environment(QUBIX_HTTP_PORT="0", QUBIX_READY_FD=str(write_fd), QUBIX_LOG_LEVEL="WARNING", **env),
        pass_fds=(write_fd,),
        stderr=stderr,
    )
    os.close(write_fd)
    with os.fdopen(read_fd) as pipe:
        line = pipe.readline()
    if not line:
        raise RuntimeError(f"it ended with status {process.wait(READY_S)} before it was ready")
    return process, json.loads(line)


@pytest.mark.asyncio
async def test_given_database_small_and_stopped_with_a_feed_open(database_url: str, tmp_path: Path) -> None:
    process, ready = start(DATABASE_URL=database_url, QUBIX_DATA_DIR=str(tmp_path))
    try:
        assert (ready["process"], ready["pid"], ready["network"]) == ("coordinator", process.pid, "devnet")
        url = str(ready["url"])
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            assert (await client.get("/readyz")).json()["database"] is True
            assert (await client.get("/openapi.json")).status_code == 200
        assert psutil.Process(process.pid).memory_info().rss <= RESIDENT_BYTES_MAX
        token = (tmp_path / "developer.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        async with connect(url.replace("http://", "ws://") + "/live", additional_headers=headers) as feed:
            await feed.send('{"subscribe": ["market"]}')
            await feed.recv()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(STOP_S):
                with contextlib.suppress(ConnectionClosed):
                    async for frame in feed:  # that the market is quiet may be told once more
                        assert json.loads(frame)["kind"] == "still"
            assert feed.close_code == GOING_AWAY
        assert process.wait(STOP_S) == 0
    finally:
        process.kill()
        process.wait(STOP_S)


def test_it_ends_and_says_so_when_its_own_database_does() -> None:
    with reachable_folder() as folder:
        process, _ = start(QUBIX_DATA_DIR=str(folder), stderr=subprocess.PIPE)
        with process:
            try:
                postmaster = int((folder / "postgres/data/postmaster.pid").read_text().split()[0])
                os.kill(postmaster, signal.SIGKILL)
                _, said = process.communicate(timeout=STOP_S)
            finally:
                process.kill()
        assert process.returncode == 1
        assert b"qubix: our own PostgreSQL ended with status -9. Start the coordinator again" in said


def test_own_database_lives_and_dies_with_it_and_keeps_its_tokens() -> None:
    with reachable_folder() as folder:
        tokens, keys = [], []
        for _ in range(2):
            process, ready = start(QUBIX_DATA_DIR=str(folder))
            try:
                tokens.append((folder / "developer.token").read_text().strip())
                headers = {"Authorization": f"Bearer {tokens[-1]}"}
                assert httpx.get(f"{ready['url']}/api/v1/account", headers=headers, timeout=30).status_code == 200
                keys.append(httpx.get(f"{ready['url']}/api/v1/network", timeout=30).json()["coordinator_key"])
                children = psutil.Process(process.pid).children(recursive=True)
                assert any("postgres" in name for name in _names(children))
                process.send_signal(signal.SIGINT)
                assert process.wait(STOP_S) == 0
                assert not psutil.wait_procs(children, timeout=STOP_S)[1]
            finally:
                process.kill()
                process.wait(STOP_S)
        assert tokens[0] == tokens[1]
        assert keys[0] == keys[1]


def _names(processes: list[psutil.Process]) -> Iterator[str]:
    """Of those that still live: PostgreSQL's own helpers come and go."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            yield process.name()


def run(**env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        COMMAND, env=clean_environment(**env), capture_output=True, text=True, timeout=READY_S, check=False
    )


def test_bad_settings_are_one_line_and_status_2(tmp_path: Path) -> None:
    done = run(QUBIX_DATA_DIR=str(tmp_path), QUBIX_HTTP_PORT="many")
    assert done.returncode == 2
    assert "QUBIX_HTTP_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(QUBIX_DATA_DIR=str(tmp_path), QUBIX_HTTP_PORT=str(port))
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "QUBIX_HTTP_PORT" in done.stderr
    assert "Traceback" not in done.stderr
