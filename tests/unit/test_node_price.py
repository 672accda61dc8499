# SPDX-License-Identifier: Apache-2.0
"""What a node asks: its setting, until its owner says otherwise while it runs."""

from pathlib import Path

import pytest

from qubix_node import files
from qubix_node.__main__ import main
from qubix_node.errors import NotRunning
from qubix_node.offers import price
from qubix_node.offers.price import Price


def test_a_price_is_told_to_the_running_node_and_kept_while_the_setting_stays(tmp_path: Path) -> None:
    with files.locked(tmp_path):
        asked = Price(tmp_path, 100)
        assert not asked.look()
        price.announce(tmp_path, 250, 100)
        assert asked.look()
        assert asked.qu_per_h == 250
        assert not asked.look()
        assert Price(tmp_path, 100).qu_per_h == 250, "after a restart"
        assert Price(tmp_path, 120).qu_per_h == 120, "the setting was changed since"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"rate_qu_per_h": -1, "setting_qu_per_h": 100}', "\xff"])
def test_a_file_that_says_nothing_changes_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "rate.json").write_bytes(text.encode("latin-1"))
    assert Price(tmp_path, 100).qu_per_h == 100


def test_nobody_is_told_when_no_node_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotRunning):
        price.announce(tmp_path, 1, 1)
    assert main(["--data-dir", str(tmp_path), "--set-rate", "5"]) == 1
    assert "no node runs" in capsys.readouterr().err
    with files.locked(tmp_path / "node"):
        assert main(["--data-dir", str(tmp_path), "--set-rate", "5"]) == 0
    with pytest.raises(SystemExit):
        main(["--set-rate", "-5"])
