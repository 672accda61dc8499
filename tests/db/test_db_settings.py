# SPDX-License-Identifier: Apache-2.0
"""Settings are read once, checked, and refused by name and with a remedy."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from qubix_coordinator.settings import Settings, from_mappings
from qubix_protocol.settings import SettingsError, describe
from tests.support_pg import clean_environment


def test_defaults_then_table_then_environment() -> None:
    assert from_mappings({}, {}).http_port == 8600
    table = {"coordinator": {"http_port": 1, "allowed_hosts": ["a", "b"], "log_json": True, "lease_s": 20}}
    chosen = from_mappings({"QUBIX_HTTP_PORT": "2", "QUBIX_DATA_DIR": "/data", "QUBIX_READY_FD": "7"}, table)
    assert (chosen.http_port, chosen.allowed_hosts, chosen.log_json, chosen.lease_s) == (2, ("a", "b"), True, 20.0)
    assert (chosen.data_dir, chosen.ready_fd) == (Path("/data"), 7)
    assert from_mappings({"QUBIX_ALLOWED_HOSTS": " x , y,"}, table).allowed_hosts == ("x", "y")
    assert from_mappings({"QUBIX_HTTP_PORT": ""}, {}).http_port == 8600, "an empty variable is not set"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QUBIX_HTTP_PORT", "eighty"),
        ("QUBIX_HTTP_PORT", "65536"),
        ("QUBIX_HTTP_PORT", "-1"),
        ("QUBIX_NETWORK", "mars"),
        ("QUBIX_LEASE_S", "nan"),
        ("QUBIX_LEASE_S", "inf"),
        ("QUBIX_LEASE_S", "3"),
        ("QUBIX_LOG_JSON", "perhaps"),
        ("QUBIX_FEE_BPS", "10001"),
        ("QUBIX_FEE_BPS", "2.5"),
        ("QUBIX_READY_FD", "x"),
        ("DATABASE_URL", "mysql://host/name"),
        ("QUBIX_WALLETCONNECT_PROJECT_ID", "a project"),
        ("QUBIX_WALLETCONNECT_RELAY", "https://relay.example"),
        ("QUBIX_WALLETCONNECT_RELAY", "ws://relay.example"),
        ("QUBIX_WALLETCONNECT_RELAY", "wss://relay.example/path"),
        ("QUBIX_WALLETCONNECT_RELAY", "wss://relay.example; script-src *"),
        ("QUBIX_WALLETCONNECT_RELAY", "wss://relay.example\n"),
        ("QUBIX_WALLETCONNECT_CHAIN", "qubic"),
    ],
)
def test_a_bad_value_is_named_with_a_remedy(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        from_mappings({name: value}, {})
    assert refused.value.name == name
    assert refused.value.remedy


def test_the_main_network_reaches_its_relay_by_tls_alone() -> None:
    relay = {"QUBIX_WALLETCONNECT_RELAY": "ws://127.0.0.1:1"}
    assert from_mappings(relay, {}).walletconnect_relay == "ws://127.0.0.1:1"
    with pytest.raises(SettingsError):
        from_mappings({**relay, "QUBIX_NETWORK": "main"}, {})


@pytest.mark.parametrize(
    ("key", "value"),
    [("typo", 1), ("http_port", "x"), ("http_port", True), ("log_json", 1), ("allowed_hosts", "a"), ("http_port", [1])],
)
def test_a_bad_table_is_named(key: str, value: object) -> None:
    with pytest.raises(SettingsError) as refused:
        from_mappings({}, {"coordinator": {key: value}})
    assert refused.value.name == key


def test_every_setting_is_documented_once() -> None:
    rows = describe(Settings)
    assert [row.key for row in rows] == [field.name for field in dataclasses.fields(Settings)]
    assert len({row.env for row in rows}) == len(rows)
    assert all(row.doc.endswith(".") and row.default for row in rows)


def test_secrets_stay_out_of_the_text() -> None:
    assert "hunter2" not in repr(from_mappings({"DATABASE_URL": "postgresql://u:hunter2@h/d"}, {}))


def test_a_process_exits_with_status_2_and_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qubix_coordinator.db.embedded"],
        env=clean_environment(QUBIX_HTTP_PORT="x"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("qubix: QUBIX_HTTP_PORT: 'x' is not a whole number")
    assert done.stderr.count("\n") == 1
