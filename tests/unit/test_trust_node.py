# SPDX-License-Identifier: Apache-2.0
"""A worker is trusted with its own files alone: what it leaves in their place must not leave the machine."""

import errno
import os
from pathlib import Path

import pytest

from qubix_kernels.tasks import ChunkDone
from qubix_node.files import open_plain
from qubix_node.jobs.runner import _Path
from qubix_protocol.messages import Range


def test_a_plain_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "chunk").write_bytes(b"result")
    with open_plain(tmp_path / "chunk") as file:
        assert file.read() == b"result"


def test_a_link_to_a_secret_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"key")
    (tmp_path / "chunk").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match=str(tmp_path)) as refused:
        open_plain(tmp_path / "chunk")
    assert refused.value.errno == errno.ELOOP


def test_neither_pipes_nor_folders_are_read(tmp_path: Path) -> None:
    """Opening a pipe that nobody writes to would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match="plain file"):
            open_plain(path)


def chunk(index: int, start: int, stop: int) -> ChunkDone:
    return ChunkDone(index=index, start=start, stop=stop, path="x", size_bytes=1, digest=bytes(32), run_ms=1.0)


@pytest.mark.parametrize(
    "second", [chunk(1, 0, 5), chunk(1, 4, 9), chunk(1, 6, 9), chunk(0, 5, 9), chunk(2, 5, 9), chunk(1, 5, 11)]
)
def test_chunks_that_are_not_the_next_of_the_assignment_are_not_taken(second: ChunkDone) -> None:
    path = _Path([Range(0, 10), Range(20, 30)])
    assert path.take(chunk(0, 0, 5))
    assert not path.take(second)
