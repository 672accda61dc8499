# SPDX-License-Identifier: Apache-2.0
"""What this machine has for a box: bubblewrap, user namespaces, seccomp, Landlock; and why not, in words for people."""

import functools
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from qubix_kernels.box import rules

log = logging.getLogger(__name__)
Kind = Literal["box", "limited"]
WISHES: Final = ("auto", "require", "limited")
_PACKAGES: Final = (
    "qubix_kernels",
    "qubix_protocol",
    "numpy",
    "msgspec",
    "msgpack",
    "pyseccomp",
    "onnxruntime",
    "numba",
    "wgpu",
)
_TRY_S: Final = 20.0
_REMEDIES: Final = {
    "apparmor": "set the sysctl kernel.apparmor_restrict_unprivileged_userns=0, or give bwrap an AppArmor profile",
    "clone": "set the sysctl kernel.unprivileged_userns_clone=1",
    "max": "set the sysctl user.max_user_namespaces above 0",
}


class Isolation(msgspec.Struct, frozen=True):
    """`reason` says why it is no box, and what to do; "" for a box."""

    kind: Kind
    reason: str = ""
    bwrap: str = ""


class NoBox(Exception):
    """A box is required and cannot be made; the message says why and what to do."""


def wished(wish: str, variable: str, isolation: Callable[[], Isolation] | None = None) -> Isolation:
    """By the setting `variable`, of which `wish` is the value, and by what the machine has. Raises `NoBox`."""
    if wish == "limited":
        return Isolation("limited", f"{variable}=limited forbids the box")
    found = (isolation or found_here)()
    if found.kind != "box":
        if wish == "require":
            raise NoBox(f"{variable}=require, but no box can be made: {found.reason}")
        log.warning("box.none", extra={"reason": found.reason, "then": "jobs run in limited child processes"})
    return found


@functools.cache
def found_here() -> Isolation:
    """Tried for real, once: a box is made and left."""
    if sys.platform != "linux":
        return Isolation("limited", f"the box needs Linux, this is {sys.platform}")
    return tried(shutil.which("bwrap", path=os.defpath + ":/usr/local/bin"))


def tried(bwrap: str | None) -> Isolation:
    """With this program as bubblewrap."""
    if bwrap is None:
        return Isolation("limited", "bubblewrap is missing: install the package bubblewrap (it brings bwrap)")
    problem = _problem_of_seccomp() or _problem_of(bwrap)
    return Isolation("limited", problem) if problem else Isolation("box", "", bwrap)


def _problem_of_seccomp() -> str:
    try:
        import pyseccomp  # noqa: F401
    except ImportError:
        return "pyseccomp is missing: install qubix with its extra `worker`"
    except RuntimeError:
        return "libseccomp is missing: install the package libseccomp2 (Debian) or libseccomp"
    return ""


def _problem_of(bwrap: str) -> str:
    """A whole box with nothing in it but a private /proc of a second layer, as the zygote makes them."""
    words = rules.bwrap_words(bwrap, rules.View(readable=(), folders=()), {}, links_of_root())
    inner = "unshare --mount --pid --ipc --net --fork --mount-proc true"
    try:
        tried = subprocess.run(
            [*words, "/bin/sh", "-c", inner],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TRY_S,
            env={},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{bwrap} does not start: {error}"
    if tried.returncode == 0:
        return ""
    said = tried.stderr.decode(errors="replace").strip().replace("\n", "; ")[:300]
    return f"no namespaces for this user ({said or f'status {tried.returncode}'}): {_remedy()}"


def _remedy() -> str:
    for key, path, bad in (
        ("max", "/proc/sys/user/max_user_namespaces", "0"),
        ("clone", "/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("apparmor", "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ):
        try:
            if Path(path).read_text().strip() == bad:
                return _REMEDIES[key]
        except OSError:
            continue
    return "in a container, allow it user namespaces and an unmasked /proc"


def links_of_root() -> tuple[tuple[str, str], ...]:
    """/bin, /lib and the like where they are links into /usr."""
    names = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
    return tuple((name, os.readlink(name)) for name in names if Path(name).is_symlink())


def readable() -> tuple[str, ...]:
    """Folders with the interpreter, the packages a worker needs, and our own sources where they lie outside those."""
    found = [sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parent.parent)]
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            found.append(str(origin.parent.parent if origin.name == "__init__.py" else origin.parent))
    # Both the name that Python was started by and what it leads to must be there.
    both = [path for one in found for path in (one, os.path.realpath(one))]
    return rules.without_nested([path for path in both if path != "/"])
