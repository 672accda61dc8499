# SPDX-License-Identifier: Apache-2.0
"""One configuration file for all processes: each reads its own tables, and a mistake is named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from qubix.settings import from_mapping as client_settings
from qubix_coordinator.jobs.verify_settings import from_mappings as verifier_settings
from qubix_coordinator.settings import from_mappings as coordinator_settings
from qubix_coordinator.settings import read_text
from qubix_mesh.gateway.settings import from_mapping as gateway_settings
from qubix_mesh.watch_settings import from_mapping as mesh_settings
from qubix_node.settings import from_mappings as node_settings
from qubix_protocol.settings import SettingsError, read_config, tables

FILE = """
[coordinator]
http_port = 5
fee_bps = 100
[verifier]
verifier_parallel = 3
[gateway]
peers_max = 7
token = "t"
[node]
rate_qu_per_h = 9
[client]
timeout_s = 4.0
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "q.toml").write_text(FILE)
    return {"QUBIX_CONFIG": str(tmp_path / "q.toml")}


def test_each_process_reads_its_tables(env: dict[str, str]) -> None:
    toml = read_config(env, read_text)
    assert coordinator_settings({}, toml).http_port == 5
    verifier = verifier_settings({}, toml)
    assert (verifier.fee_bps, verifier.verifier_parallel) == (100, 3)
    assert gateway_settings({}, toml).peers_max == 7
    assert node_settings({}, toml).rate_qu_per_h == 9
    assert client_settings(env).timeout_s == 4.0


def test_the_environment_wins(env: dict[str, str]) -> None:
    toml = read_config(env, read_text)
    assert coordinator_settings({"QUBIX_HTTP_PORT": "6"}, toml).http_port == 6
    assert client_settings(env | {"QUBIX_TIMEOUT_S": "8"}).timeout_s == 8.0


@pytest.mark.parametrize(
    "address",
    [
        lambda env: client_settings(env).url,
        lambda env: gateway_settings(env, {"gateway": {"token": "t"}}).coordinator_url,
        lambda env: mesh_settings(env).coordinator_url,
        lambda env: node_settings(env, {}).coordinator_url,
    ],
    ids=["client", "gateway", "mesh", "node"],
)
def test_this_machine_s_coordinator_is_found_by_its_port(address: Callable[[dict[str, str]], str]) -> None:
    assert address({}) == address({"QUBIX_HTTP_PORT": "0"}) == "http://127.0.0.1:8600"
    assert address({"QUBIX_HTTP_PORT": "9000"}) == "http://127.0.0.1:9000"
    assert address({"QUBIX_HTTP_PORT": "9000", "QUBIX_COORDINATOR_URL": "https://far"}) == "https://far"


def test_without_a_file_there_is_nothing_to_read() -> None:
    assert read_config({}, read_text) == {}


def test_a_file_that_is_absent_or_broken_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[coordinator\n")
    for path in (bad, tmp_path / "absent.toml", tmp_path):
        with pytest.raises(SettingsError, match="QUBIX_CONFIG"):
            read_config({"QUBIX_CONFIG": str(path)}, read_text)


def test_a_table_must_be_one_and_hold_known_settings() -> None:
    with pytest.raises(SettingsError, match="table"):
        tables({"node": 5}, "node")
    with pytest.raises(SettingsError, match="colour"):
        node_settings({}, {"node": {"colour": "red"}})
