# SPDX-License-Identifier: Apache-2.0
"""Control groups: found where this user may make them, filled, and gone afterwards."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qubix_kernels.box import cgroup, machine
from qubix_kernels.box.rules import Limits
from qubix_kernels.zygote import Zygote
from tests.box.world import MIB, until
from tests.kernels.worker_world import Product, hear_all, say

V2 = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/qubix.service\n"
V2_MOUNTS = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "4:memory:/user/one\n8:pids:/\n9:name=systemd:/\n"
V1_MOUNTS = (
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n"
    "40 31 0:37 /docker/x /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
)


def test_a_group_is_made_beside_ones_own_first_and_the_old_hierarchies_are_last() -> None:
    own = Path("/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/qubix.service")
    assert cgroup.candidates(V2, V2_MOUNTS) == [[own.parent], [own]]
    old = [Path("/sys/fs/cgroup/memory/user/one"), Path("/sys/fs/cgroup/pids")]
    assert cgroup.candidates(V1, V1_MOUNTS) == [old]
    assert cgroup.candidates(V1 + V2, V1_MOUNTS + V2_MOUNTS)[-1] == old
    assert cgroup.candidates("", V2_MOUNTS) == []


def test_what_is_bound_is_what_there_is(tmp_path: Path) -> None:
    for name in ("memory.max", "memory.swap.max", "pids.max", "cgroup.procs"):
        (tmp_path / name).touch()
    cgroup.bound(tmp_path, Limits(memory_bytes=100 * MIB))
    assert (tmp_path / "memory.max").read_text() == str(420 * MIB), "its own, and what /tmp and /dev/shm hold"
    assert (tmp_path / "memory.swap.max").read_text() == "0"
    assert int((tmp_path / "pids.max").read_text()) >= 256
    (tmp_path / "memory.max").write_text("max")
    cgroup.bound(tmp_path, Limits())
    assert (tmp_path / "memory.max").read_text() == "max"


def test_what_dead_processes_left_is_removed(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left, used = tmp_path / f"qubix-{int(dead.stdout)}-0", tmp_path / f"qubix-{os.getpid()}-0"
    other = tmp_path / "qubix-of-somebody-else"
    for path in (left, used, other):
        path.mkdir()
    cgroup.sweep(tmp_path)
    assert [path.exists() for path in (left, used, other)] == [False, True, True]


EATER = "input(); kept = []\nwhile True: kept.append(bytearray(1 << 20))"


def test_who_takes_more_memory_than_the_group_may_is_ended_by_the_kernel() -> None:
    """Where this user may make groups; where not, that is what the search finds."""
    parent = cgroup.parent()
    if parent is None:
        assert os.geteuid() != 0 or not os.access("/sys/fs/cgroup", os.W_OK)
        return
    group = parent.make(Limits(memory_bytes=16 * MIB))
    with subprocess.Popen([sys.executable, "-c", EATER], stdin=subprocess.PIPE) as eater:
        assert eater.stdin is not None
        group.add(eater.pid)
        assert not group.remove(), "somebody is in it"
        eater.stdin.write(b"\n")
        eater.stdin.close()
        assert eater.wait(60) == -9
    until(group.remove)
    assert group.out_of_memory


def test_a_worker_is_in_its_group_and_leaves_none_behind(tmp_path: Path) -> None:
    parent = cgroup.parent()
    folders = parent.folders if parent else []

    def groups() -> list[str]:
        return sorted(path.name for folder in folders for path in folder.glob(f"qubix-{os.getpid()}-*"))

    # A zygote of another test may have left one that the kernel had not let go when it was closed.
    before = groups()
    zygote = Zygote.start(folders=[tmp_path], isolation=machine.found_here())
    try:
        product = Product(tmp_path, rows=8)
        worker = zygote.fork(scratch=tmp_path, out=tmp_path, limits=Limits(memory_bytes=1024 * MIB))
        with worker.sock:
            assert len(groups()) == len(before) + len(folders)
            own = Path(f"/proc/{worker.pid}/cgroup").read_text()
            assert own.count("/qubix-") == len(folders)
            say(worker.sock, product.run(chunk_units=8))
            assert len(hear_all(worker.sock)) == 2
        until(lambda: zygote.status(worker) is not None)
        until(lambda: zygote.status(worker) is not None and groups() == before)
        left = zygote.fork(scratch=tmp_path)
        left.sock.close()
    finally:
        zygote.close()
    deadline_s = time.monotonic() + 60
    while groups() != before and time.monotonic() < deadline_s:
        zygote.close()
    assert groups() == before


def test_workers_that_start_and_end_at_once_do_not_lose_each_other_s_end(tmp_path: Path) -> None:
    """A start removes the groups of those that have ended, while somebody else asks how they did."""
    zygote = Zygote.start(folders=[tmp_path], isolation=machine.found_here())

    def lives(_: int) -> list[int | None]:
        ends = []
        for _ in range(12):
            worker = zygote.fork(scratch=tmp_path)
            with worker.sock:
                zygote.kill(worker)
                until(lambda worker=worker: zygote.status(worker) is not None)  # type: ignore[misc]
                ends.append(zygote.end_of(worker).status)
        return ends

    try:
        with ThreadPoolExecutor(4) as pool:
            assert [end for ends in pool.map(lives, range(4)) for end in ends] == [-signal.SIGKILL] * 48
    finally:
        zygote.close()


@pytest.mark.parametrize(
    "text", ["oom_kill 0\n", "low 0\noom_kill 3\n", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"]
)
def test_the_kernel_s_word_is_read(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "group"
    folder.mkdir()
    (folder / ("memory.oom_control" if "under_oom" in text else "memory.events")).write_text(text)
    group = cgroup.Group([folder])
    assert not group.remove(), "files are in the way, as processes would be"
    assert group.out_of_memory is not text.startswith("oom_kill 0")
