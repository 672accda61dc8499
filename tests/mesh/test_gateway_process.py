# SPDX-License-Identifier: Apache-2.0
"""The gateway as a process: its identity, its ready line, its end, its complaints."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from qubix_mesh.gateway.errors import BadKeyFile
from qubix_mesh.gateway.keyfile import load_or_create
from qubix_mesh.gateway.settings import Settings, from_mapping
from qubix_protocol.keys import SigningKey
from qubix_protocol.settings import SettingsError, describe

RSS_BYTES_MAX = 120 * 1024 * 1024
STOP_S = 3.0
START_S = 60.0


@contextmanager
def gateway(folder: Path, **env: str) -> Iterator[tuple["subprocess.Popen[bytes]", dict[str, Any]]]:
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "qubix_mesh.gateway"],
        env={
            **os.environ,
            "QUBIX_GATEWAY_TOKEN": "secret",
            "QUBIX_DATA_DIR": str(folder),
            "QUBIX_COORDINATOR_URL": "http://127.0.0.1:1",
            "QUBIX_READY_FD": str(write),
            **env,
        },
        pass_fds=[write],
        stderr=subprocess.PIPE,
    )
    os.close(write)
    try:
        with os.fdopen(read) as ready:
            line = ready.readline()
        yield process, json.loads(line) if line else {}
    finally:
        process.kill()
        process.communicate()


def test_it_says_that_it_is_ready_keeps_small_and_stops_when_told(tmp_path: Path) -> None:
    with gateway(tmp_path) as (process, ready):
        assert (ready["process"], ready["pid"]) == ("gateway", process.pid)
        key = tmp_path / "gateway.key"
        assert key.stat().st_mode & 0o777 == 0o600
        assert ready["peer_id"] == SigningKey(key.read_bytes()).peer_id
        assert ready["addresses"][0].endswith(ready["peer_id"])
        rss = psutil.Process(process.pid).memory_info().rss
        process.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        assert process.wait(START_S) == 0
        assert time.monotonic() - began_s < 10 * STOP_S
        assert rss <= RSS_BYTES_MAX
        assert process.stderr is not None
        log = process.stderr.read().decode()
        assert "gateway.ready" in log
        assert "gateway.stopped" in log
        assert "Traceback" not in log
        assert "ERROR" not in log


def test_it_keeps_its_identity_and_ends_on_interrupt(tmp_path: Path) -> None:
    names = []
    for _ in range(2):
        with gateway(tmp_path) as (process, ready):
            names.append(ready["peer_id"])
            process.send_signal(signal.SIGINT)
            assert process.wait(START_S) == 0
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"QUBIX_GATEWAY_TOKEN": ""}, "QUBIX_GATEWAY_TOKEN"),
        ({"QUBIX_GATEWAY_LISTEN": "nonsense"}, "QUBIX_GATEWAY_LISTEN"),
        ({"QUBIX_GATEWAY_LISTEN": "/ip4/203.0.113.1/tcp/4001"}, "203.0.113.1"),
        ({"QUBIX_GATEWAY_KEY_FILE": "/proc/nobody/gateway.key"}, "/proc/nobody"),
    ],
)
def test_what_cannot_be_used_is_named_and_ends_with_2(tmp_path: Path, env: dict[str, str], named: str) -> None:
    with gateway(tmp_path, **env) as (process, ready):
        assert process.wait(START_S) == 2
        assert ready == {}
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert named in said
        assert "Traceback" not in said


GOOD = {"QUBIX_GATEWAY_TOKEN": "secret"}


def test_settings_are_documented_and_the_secret_is_not_shown() -> None:
    rows = {row.env: row for row in describe(Settings)}
    assert {"QUBIX_GATEWAY_KEY_FILE", "QUBIX_GATEWAY_LISTEN", "QUBIX_COORDINATOR_URL", "QUBIX_READY_FD"} <= rows.keys()
    assert all(row.doc.endswith(".") for row in rows.values())
    assert "secret" not in repr(from_mapping(GOOD))


def test_the_link_address_follows_the_coordinators() -> None:
    assert from_mapping(GOOD).link_url == "ws://127.0.0.1:8600/mesh/link"
    assert from_mapping({**GOOD, "QUBIX_COORDINATOR_URL": "https://q.example/"}).link_url == "wss://q.example/mesh/link"


@pytest.mark.parametrize(
    "bad",
    [
        {"QUBIX_COORDINATOR_URL": "ftp://x"},
        {"QUBIX_BOOTSTRAP": "/ip4/1.2.3.4/tcp/1"},
        {"QUBIX_NETWORK": "mars"},
        {"QUBIX_GATEWAY_PEERS_MAX": "0"},
        {"QUBIX_GATEWAY_TOKEN": ""},
    ],
)
def test_bad_settings_name_themselves(bad: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=next(iter(bad))):
        from_mapping({**GOOD, **bad})


def test_a_key_is_made_once_and_guarded(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "gateway.key"
    first = load_or_create(path)
    assert load_or_create(path) == first
    assert [entry.name for entry in path.parent.iterdir()] == ["gateway.key"]
    path.chmod(0o644)
    with pytest.raises(BadKeyFile, match="chmod 600"):
        load_or_create(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(BadKeyFile, match="32 bytes"):
        load_or_create(path)


@pytest.mark.parametrize("host", ["[::1]", "[2001:db8::7]:8600", "q.example:8443"])
def test_the_link_address_keeps_hosts_of_every_kind(host: str) -> None:
    for plain, link in (("http", "ws"), ("https", "wss")):
        settings = from_mapping({**GOOD, "QUBIX_COORDINATOR_URL": f"{plain}://{host}"})
        assert settings.link_url == f"{link}://{host}/mesh/link"
