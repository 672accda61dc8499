# SPDX-License-Identifier: Apache-2.0
"""What the box shows, and how much a worker may use: decided here, done elsewhere."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Final

import msgspec

MIB: Final = 1024**2
TMP_BYTES: Final = 256 * MIB
SHARED_BYTES: Final = 64 * MIB
FILES_MAX: Final = 512
"""Descriptors a worker may hold."""
ENTRIES_MAX: Final = 20_000
"""Files and folders a job may make: twice what its chunks can be, and room for what a kernel keeps beside them."""
THREADS_MAX: Final = 1024
PROCESSES_MAX: Final = 4096
LOCKED_BYTES: Final = 64 * MIB

BOX_UID: Final = 65534
_ALWAYS: Final = ("/usr",)
_LINKS: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC: Final = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")
_SYS: Final = ("/sys/devices/system/cpu", "/sys/devices/system/node")
DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One card and its device nodes; `uuid` is what NVML and CUDA call it, or the node."""

    uuid: str
    nodes: tuple[str, ...]
    adapter: str = ""
    """Its name where wgpu finds it; empty: it is CUDA's."""
    seen: tuple[str, ...] = ()
    """What its driver's libraries read to find it, beside what every worker sees."""

    @property
    def cuda(self) -> bool:
        return not self.adapter

    @property
    def variables(self) -> dict[str, str]:
        """The libraries' own choice of cards, beside the missing device nodes of the others."""
        if self.cuda:
            return {"CUDA_VISIBLE_DEVICES": self.uuid}
        # No worker can make the folder of a cache of compiled shaders; nor may one find what another left in it.
        off = {"MESA_SHADER_CACHE_DISABLE": "true", "MESA_GLSL_CACHE_DISABLE": "true"}
        return {"CUDA_VISIBLE_DEVICES": "", "WGPUPY_WGPU_ADAPTER_NAME": self.adapter} | off


def nvidia(uuid: str, minor: int) -> Gpu:
    """Of the card behind /dev/nvidiaN: not the other cards', not modeset, not uvm-tools, not /dev/dri (trust.md B2)."""
    return Gpu(uuid=uuid, nodes=(f"/dev/nvidia{minor}", "/dev/nvidiactl", "/dev/nvidia-uvm"))


def graphics(uuid: str, adapter: str, node: str, folders: tuple[str, ...]) -> Gpu:
    """Of a card that Vulkan drives: its render node alone, with which no screen can be touched; not /dev/dri/cardN.
    `folders`: its own in /sys, by which libdrm knows it. Without a node it is software, or another system's."""
    seen = (*folders, "/sys/dev/char", "/etc/vulkan") if node else ("/etc/vulkan",)
    return Gpu(uuid=uuid, nodes=(node,) if node else (), adapter=adapter, seen=seen)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one worker; zero means none. `wall_s` and `disk_bytes` are the watchdog's, the others the kernel's too."""

    memory_bytes: int = 0
    cpu_s: int = 0
    wall_s: float = 0.0
    disk_bytes: int = 0
    address_space: bool = True
    """Whether `memory_bytes` bounds the address space as well: CUDA reserves far more than it uses."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """`readable`: the interpreter, its packages and our sources; `folders`: where scratch folders lie."""

    readable: tuple[str, ...]
    folders: tuple[str, ...]
    gpu: Gpu | None = None

    @property
    def devices(self) -> tuple[str, ...]:
        return DEVICES + (self.gpu.nodes if self.gpu else ())

    @property
    def seen(self) -> tuple[str, ...]:
        """Everything that can be read, beside the job's own."""
        return (*_ALWAYS, *_LINKS, *_ETC, *_SYS, *self.readable, *(self.gpu.seen if self.gpu else ()))


def without_nested(paths: Sequence[str]) -> tuple[str, ...]:
    """Each path once, without those beneath another one."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not any(is_beneath(path, other) for other in kept):
            kept.append(path)
    return tuple(kept)


def is_beneath(path: str, folder: str) -> bool:
    """Or the folder itself. Both are absolute and without links."""
    return PurePath(path).is_relative_to(folder)


def bwrap_words(bwrap: str, view: View, variables: Mapping[str, str], links: Sequence[tuple[str, str]]) -> list[str]:
    """The command line up to the program. `links` are those of the root folder that lead into /usr, (name, target).

    The zygote inside keeps one capability, within its own user namespace alone: it makes each worker's private layer.
    """
    linked = {name for name, _ in links}
    words = [bwrap, "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    words += ["--unshare-cgroup-try", "--as-pid-1", "--new-session", "--clearenv", "--hostname", "box"]
    words += ["--uid", str(BOX_UID), "--gid", str(BOX_UID), "--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"]
    words += ["--proc", "/proc", "--size", str(MIB), "--tmpfs", "/dev", "--dir", "/dev/shm"]  # noqa: S108
    words += ["--size", str(MIB), "--tmpfs", "/tmp"]  # noqa: S108
    for name, value in variables.items():
        words += ["--setenv", name, value]
    for name, target in links:
        words += ["--symlink", target, name]
    for path in without_nested([path for path in view.seen if path not in linked]):
        words += ["--ro-bind-try", path, path]
    for device in view.devices:
        words += ["--dev-bind-try", device, device]
    for folder in view.folders:
        words += ["--bind", folder, folder]
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/tmp", "--remount-ro", "/", "--chdir", "/", "--"]  # noqa: S108
