# SPDX-License-Identifier: Apache-2.0
"""What `qubix up` is made of, piece by piece."""

import os
from pathlib import Path

import pytest

from qubix.errors import StartFailed
from qubix.up import desktop, lock, logs, rules
from qubix.up.market import Plan, environment, parts, where_it_runs
from qubix.up.supervisor import Part


def test_restarts_wait_longer_each_time_and_end() -> None:
    waits = [rules.restart_after_s(deaths) for deaths in range(1, rules.RESTARTS_MAX + 2)]
    assert waits[-1] is None
    known = [wait for wait in waits if wait is not None]
    assert known == sorted(known)
    assert len(known) == rules.RESTARTS_MAX


def test_old_deaths_are_forgiven() -> None:
    assert rules.recent([0.0, 50.0, 100.0], 105.0) == [50.0, 100.0]


def test_one_market_on_a_folder(tmp_path: Path) -> None:
    with (
        lock.held(tmp_path),
        pytest.raises(StartFailed, match=f"process {os.getpid()}"),
        lock.held(tmp_path),
    ):
        raise AssertionError("two hold it")
    with lock.held(tmp_path):
        pass


def test_logs_are_bounded_and_end_in_their_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    with logs.writer(path) as out:
        out.write(b"".join(b"line %d\n" % n for n in range(100)))
    assert path.stat().st_mode & 0o077 == 0
    assert logs.tail(path, 2) == "line 98\nline 99"
    earlier = logs.size(path)
    with logs.writer(path) as out:
        out.write(b"of this run\n")
    assert logs.tail(path, start=earlier) == "of this run"
    logs.trim(path)
    assert path.stat().st_size > 0
    os.truncate(path, logs.LOG_BYTES_MAX + 1)
    with path.open("ab") as writer:
        logs.trim(path)
        writer.write(b"after\n")
    assert path.read_bytes() == b"after\n"
    assert (tmp_path / "node.log.1").stat().st_size == logs.LOG_BYTES_MAX + 1


def test_what_starts(tmp_path: Path) -> None:
    plan = Plan(data_dir=tmp_path, port=0)
    assert [one.name for one in parts(plan, {})] == [
        "database",
        "devnet",
        "coordinator",
        "gateway",
        "verifier",
        "chain",
        "node",
    ]
    elsewhere = {"DATABASE_URL": "postgresql://elsewhere/db", "QUBIX_QUBIC_URL": "https://elsewhere"}
    without = parts(Plan(data_dir=tmp_path, port=0, node=False), elsewhere)
    assert [one.name for one in without] == ["coordinator", "gateway", "verifier", "chain"]


def test_the_gateway_gets_its_token_when_it_starts(tmp_path: Path) -> None:
    gateway = next(one for one in parts(Plan(data_dir=tmp_path, port=0), {}) if one.name == "gateway")
    with pytest.raises(StartFailed, match=r"gateway\.token"):
        gateway.env({}, {})
    (tmp_path / "gateway.token").write_text("secret\n")
    assert gateway.env({}, {}) == {"QUBIX_GATEWAY_TOKEN": "secret"}
    told = gateway.exports({"addresses": ["/ip4/127.0.0.1/tcp/4001/p2p/12D3", "/ip4/10.0.0.1/tcp/4002/p2p/12D3"]})
    assert told == {"QUBIX_BOOTSTRAP": "/ip4/127.0.0.1/tcp/4001/p2p/12D3,/ip4/10.0.0.1/tcp/4002/p2p/12D3"}
    assert gateway.env({}, told)["QUBIX_GATEWAY_LISTEN"] == "/ip4/127.0.0.1/tcp/4001,/ip4/10.0.0.1/tcp/4002"


def test_the_coordinator_keeps_its_port_over_a_restart(tmp_path: Path) -> None:
    coordinator = next(one for one in parts(Plan(data_dir=tmp_path, port=0), {}) if one.name == "coordinator")
    told = coordinator.exports({"url": "http://127.0.0.1:4711/"})
    assert told == {"QUBIX_COORDINATOR_URL": "http://127.0.0.1:4711", "QUBIX_HTTP_PORT": "4711"}
    assert coordinator.env({"QUBIX_HTTP_PORT": "0"}, told) == {"QUBIX_HTTP_PORT": "4711"}
    assert coordinator.env({"QUBIX_HTTP_PORT": "0"}, {}) == {}


def test_the_devnet_is_where_wallets_look_for_it_and_keeps_its_port(tmp_path: Path) -> None:
    def devnet(port: int, outside: dict[str, str]) -> Part:
        return next(one for one in parts(Plan(data_dir=tmp_path, port=port), outside) if one.name == "devnet")

    assert devnet(8600, {}).env({}, {}) == {}
    assert devnet(0, {}).env({}, {}) == {"QUBIX_DEVNET_PORT": "0"}
    assert devnet(0, {"QUBIX_DEVNET_PORT": "4712"}).env({}, {}) == {}
    told = devnet(0, {}).exports({"url": "http://127.0.0.1:4711", "network": "devnet", "tick": 5})
    assert told == {"QUBIX_QUBIC_URL": "http://127.0.0.1:4711"}
    assert devnet(0, {}).env({}, told) == {"QUBIX_DEVNET_PORT": "4711"}
    assert "devnet, play money" in where_it_runs("devnet", {"url": "http://127.0.0.1:4711", "tick": 5})


def test_every_part_hears_what_up_heard_but_not_where_other_markets_are(tmp_path: Path) -> None:
    outside = {"QUBIX_LEASE_S": "5", "QUBIX_COORDINATOR_URL": "http://elsewhere", "QUBIX_READY_FD": "3"}
    told = environment(Plan(data_dir=tmp_path, port=1, rate_qu_per_h=7), outside)
    assert told == {
        "QUBIX_LEASE_S": "5",
        "QUBIX_DATA_DIR": str(tmp_path),
        "QUBIX_HTTP_PORT": "1",
        "QUBIX_NODE_RATE_QU_PER_H": "7",
    }


def test_the_start_up_log_shows_no_password() -> None:
    shown = where_it_runs("database", {"database_url": "postgresql://me:secret@host/db"})
    assert "secret" not in shown
    assert "host/db" in shown
    assert (
        where_it_runs("node", {"titles": ["A GPU", "An EPYC (CPU)"], "peer_id": "12D3"}) == "A GPU, An EPYC (CPU)  12D3"
    )


@pytest.mark.parametrize(
    ("env", "interactive", "platform", "there"),
    [
        ({"DISPLAY": ":0"}, True, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True, "linux", True),
        ({}, True, "linux", False),
        ({}, True, "darwin", True),
        ({"DISPLAY": ":0"}, False, "linux", False),
        ({"DISPLAY": "localhost:10.0", "SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 22"}, True, "linux", False),
    ],
)
def test_a_page_is_opened_where_somebody_sees_it(
    env: dict[str, str], interactive: bool, platform: str, there: bool
) -> None:
    assert desktop.is_there(env, interactive=interactive, platform=platform) is there
