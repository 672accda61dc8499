# SPDX-License-Identifier: Apache-2.0
"""Control groups where this process may make some: memory in all its forms, and the number of threads.

The newer hierarchy (v2) with a subtree that was delegated to this user, as systemd does for a session or a service with
`Delegate=yes`; or the older ones (v1), which only root may use. A worker is put in by its parent, before its task.
"""

import contextlib
import functools
import itertools
import os
from pathlib import Path
from typing import Final

from qubix_kernels.box.rules import SHARED_BYTES, THREADS_MAX, TMP_BYTES, Limits

_PREFIX: Final = "qubix-"
_numbers: Final = itertools.count()


class Group:
    """One worker's; `paths` holds one folder (v2), or one for each controller (v1)."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self.out_of_memory = False
        """Known when it has been removed: whether the kernel ended somebody in it for want of memory."""

    def add(self, pid: int) -> None:
        for path in self._paths:
            (path / "cgroup.procs").write_text(str(pid))

    def remove(self) -> bool:
        """False while somebody is in it."""
        for path in self._paths:
            self.out_of_memory |= _ended_somebody(path)
        self._paths = [path for path in self._paths if not _removed(path)]
        return not self._paths


def _ended_somebody(path: Path) -> bool:
    for name in ("memory.events", "memory.oom_control"):
        with contextlib.suppress(OSError):
            words = (path / name).read_text().split()
            return "oom_kill" in words and words[words.index("oom_kill") + 1] != "0"
    return False


class Parent:
    """The folders under which groups can be made."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders: Final = folders

    def make(self, limits: Limits) -> Group:
        """Raises OSError."""
        made: list[Path] = []
        name = f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
        for folder in self.folders:
            made.append(folder / name)
            made[-1].mkdir()
        group = Group(made)
        try:
            for path in made:
                bound(path, limits)
        except OSError:
            group.remove()
            raise
        return group


def bound(path: Path, limits: Limits) -> None:
    """Files in /tmp and /dev/shm are memory too: they come on top."""
    memory = limits.memory_bytes + TMP_BYTES + SHARED_BYTES if limits.memory_bytes else 0
    for name, value in (
        ("memory.max", memory),
        ("memory.limit_in_bytes", memory),
        ("memory.swap.max", 0 if memory else None),
        ("pids.max", THREADS_MAX),
    ):
        if value is not None and (value or name == "memory.swap.max") and (path / name).exists():
            (path / name).write_text(str(value))


@functools.cache
def parent() -> Parent | None:
    """What this process may use; None where it may make no groups. What dead processes left is removed."""
    try:
        known = Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text()
    except OSError:
        return None
    for folders in candidates(*known):
        with contextlib.suppress(OSError):
            for folder in folders:
                sweep(folder)
            probe = Parent(folders).make(Limits())
            usable = all(_controlled(path) for path in probe._paths)
            probe.remove()
            if usable:
                return Parent(folders)
    return None


def _controlled(path: Path) -> bool:
    return any((path / name).exists() for name in ("memory.max", "memory.limit_in_bytes", "pids.max"))


def candidates(groups: str, mountinfo: str) -> list[list[Path]]:
    """By the text of the two files in /proc/self. Beside us first: a v2 group that has processes gives its children no
    controllers."""
    own, mounts = dict(_own_groups(groups)), _mounts(mountinfo)
    found = []
    if "" in own and "" in mounts:
        at = mounts[""] / own[""].lstrip("/")
        found += [[at.parent]] if at != mounts[""] else []
        found.append([at])
    old = [mounts[name] / own[name].lstrip("/") for name in ("memory", "pids") if name in own and name in mounts]
    return [*found, *([old] if old else [])]


def _own_groups(text: str) -> list[tuple[str, str]]:
    """(controller, path) of /proc/self/cgroup; "" for v2."""
    lines = (line.split(":", 2) for line in text.splitlines())
    return [(name, path) for _, names, path in lines for name in names.split(",")]


def _mounts(text: str) -> dict[str, Path]:
    """Where each hierarchy is mounted whole, by controller; "" for v2 (proc(5), mountinfo)."""
    found = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, at = before.split()[3:5]
        if kind == "cgroup2" and root == "/":
            found[""] = Path(at)
        elif kind == "cgroup" and root == "/":
            found |= {name: Path(at) for name in ("memory", "pids") if name in options.split(",")}
    return found


def sweep(folder: Path) -> None:
    for left in folder.glob(f"{_PREFIX}*"):
        pid = left.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            _removed(left)


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
