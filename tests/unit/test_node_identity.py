# SPDX-License-Identifier: Apache-2.0
"""The key on disk, whom the node trusts, and the lock on its folder."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from qubix_node import files
from qubix_node.errors import AlreadyRunning, CannotWrite, CoordinatorChanged, Fatal, OtherNetwork, UnsafeKeyFile
from qubix_node.identity import Enrolment, Incarnations, load_enrolment, load_or_create_key, save_enrolment

KEY, OTHER = "ab" * 32, "cd" * 32


def enrolment(**changed: object) -> Enrolment:
    known = {
        "network": "devnet",
        "coordinator_url": "http://c",
        "coordinator_key": KEY,
        "account_id": "a",
        "region": "r",
    }
    return Enrolment(**{**known, **changed})  # type: ignore[arg-type]


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "node.key"
    made = load_or_create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_key(path).public == made.public
    assert [entry.name for entry in path.parent.iterdir()] == ["node.key"], "nothing is left beside it"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.key"
    load_or_create_key(path)
    path.chmod(mode)
    with pytest.raises(UnsafeKeyFile, match=f"chmod 600 {path}"):
        load_or_create_key(path)


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
def test_a_file_that_is_no_key_is_never_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "node.key"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(UnsafeKeyFile, match="holds no key"):
        load_or_create_key(path)
    assert path.read_bytes() == content


def test_the_pin_is_kept_and_defended(tmp_path: Path) -> None:
    path = tmp_path / "enrolment.json"
    assert load_enrolment(path) is None
    save_enrolment(path, enrolment())
    known = load_enrolment(path)
    assert known == enrolment()
    known.check(network="devnet", coordinator_key=KEY, path=path)
    with pytest.raises(CoordinatorChanged, match=f"delete {path}"):
        known.check(network="devnet", coordinator_key=OTHER, path=path)
    with pytest.raises(OtherNetwork, match="QUBIX_NETWORK"):
        known.check(network="test", coordinator_key=KEY, path=path)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"account_id": "\xff\xfe"}'])
def test_a_damaged_pin_is_not_forgotten_silently(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "enrolment.json"
    path.write_bytes(content)
    with pytest.raises(Fatal, match="Delete it"):
        load_enrolment(path)


def test_session_numbers_only_rise_and_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "incarnation"
    numbers = Incarnations(path)
    assert [numbers.advance(n) for n in (3, 3, 2, 4)] == [True, False, False, True]
    assert [Incarnations(path).advance(n) for n in (4, 5)] == [False, True]


def test_a_second_node_on_the_folder_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunning, match="QUBIX_DATA_DIR"), files.locked(tmp_path):
            pass
        holder.kill()
        holder.wait(30)
        with files.locked(tmp_path):
            pass


HOLD = """
import sys
from pathlib import Path
from qubix_node import files
with files.locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_that_cannot_be_made_is_told_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match="QUBIX_DATA_DIR"), files.locked(tmp_path / "file" / "node"):
        pass
