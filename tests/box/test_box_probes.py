# SPDX-License-Identifier: Apache-2.0
"""Hostile code where jobs run: no attempt succeeds, each ends by its own limit, and the next honest job works (B1)."""

import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from errno import EACCES, EBUSY, EFBIG, EMFILE, ENOENT, ENOSPC, ENOSYS, EPERM, EROFS
from pathlib import Path
from typing import Any

import pytest

from qubix_kernels.box import machine
from tests.box.world import MIB, Lair, hostile, killed
from tests.kernels.worker_world import say

MISSING = {ENOENT, EACCES}
UNWRITABLE = {EROFS, EACCES}
FORBIDDEN = {EPERM}


@pytest.fixture(scope="module")
def shared_lair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lair]:
    found = machine.found_here()
    assert found.kind == "box", found.reason
    made = Lair(tmp_path_factory.mktemp("lair"), found)
    yield made
    made.close()


@pytest.fixture
def lair(shared_lair: Lair) -> Iterator[Lair]:
    yield shared_lair
    shared_lair.check_health()


def refused(lair: Lair, name: str, *words: Any, by: set[int]) -> None:
    outcome, end = lair.attempt(name, *words)
    assert outcome is not None, end
    assert outcome.error in by, outcome
    assert end.status == 0, end


# Files --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/etc/shadow", "/etc/passwd", "/root", "/home", "/proc/1/root/etc/shadow", "/run"])
def test_the_system_s_secrets_are_not_there(lair: Lair, path: str) -> None:
    refused(lair, "read", path, by=MISSING)


def test_the_node_s_key_is_not_there(lair: Lair) -> None:
    refused(lair, "read", str(lair.secret), by=MISSING)


def test_another_job_s_folder_is_not_there(lair: Lair) -> None:
    refused(lair, "read", str(lair.others / "input"), by=MISSING)
    refused(lair, "read", f"{lair.out}/../../others/input", by=MISSING)
    refused(lair, "entries", str(lair.others), by=MISSING)
    outcome, _ = lair.attempt("entries", str(lair.shown))
    assert outcome.error == EACCES or outcome.said == ["mine"]


@pytest.mark.parametrize(
    "folder", ["/", "/usr", "/dev", "/proc", "/etc", str(Path(sys.prefix)), os.path.dirname(__file__)]
)
def test_nothing_of_the_system_can_be_written(lair: Lair, folder: str) -> None:
    """A repository that lies in /tmp is beside the box's own /tmp, where anything may be written, and leads nowhere."""
    outcome, end = lair.attempt("write", f"{folder}/planted")
    assert outcome is not None, end
    assert outcome.error in UNWRITABLE | MISSING or Path(folder).is_relative_to("/tmp"), outcome
    assert end.status == 0, end
    assert not Path(folder, "planted").exists()


def test_inputs_cannot_be_changed_or_replaced(lair: Lair) -> None:
    path = str(lair.mine / "a.npy")
    before = (lair.mine / "a.npy").read_bytes()
    refused(lair, "write_existing", path, by=UNWRITABLE)
    refused(lair, "remove", path, by=UNWRITABLE)
    refused(lair, "write", str(lair.mine / "planted"), by=UNWRITABLE)
    refused(lair, "move", f"{lair.out}", f"{lair.mine}/elsewhere", by={EROFS, EACCES, EBUSY})
    assert (lair.mine / "a.npy").read_bytes() == before


@pytest.mark.parametrize("name", ["make_link", "make_hard_link"])
def test_no_link_can_be_made(lair: Lair, name: str) -> None:
    refused(lair, name, str(lair.out / "link"), str(lair.mine / "a.npy"), by=FORBIDDEN)


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
def test_no_pipe_socket_or_device_can_be_made(lair: Lair, kind: int) -> None:
    refused(lair, "make_node", str(lair.out / "node"), kind, os.makedev(1, 1), by=FORBIDDEN)


def test_what_is_left_is_flat_and_can_be_read(lair: Lair) -> None:
    """Deep folders hide from whoever counts, and what is unreadable from whoever removes."""
    refused(lair, "make_folder", str(lair.out / "folder"), by=FORBIDDEN)
    refused(lair, "make_unreadable", str(lair.out), by=FORBIDDEN)


@pytest.mark.parametrize(
    "name", ["mem", "kmsg", "port", "kvm", "fuse", "tty", "ptmx", "pts/ptmx", "console", "vda", "sda"]
)
def test_no_device_is_there(lair: Lair, name: str) -> None:
    refused(lair, "read", f"/dev/{name}", by=MISSING)


@pytest.mark.parametrize(
    "name", ["nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", "dri/card0"]
)
def test_no_card_is_there_for_a_job_without_one(lair: Lair, name: str) -> None:
    refused(lair, "read", f"/dev/{name}", by=MISSING)


@pytest.mark.parametrize(
    "name",
    [
        "sys/kernel/core_pattern",
        "sys/vm/overcommit_memory",
        "sys/kernel/modprobe",
        "sysrq-trigger",
        "self/oom_score_adj",
        "self/uid_map",
        "self/mem",
        "irq/0/smp_affinity",
    ],
)
def test_nothing_of_proc_can_be_written(lair: Lair, name: str) -> None:
    refused(lair, "write_existing", f"/proc/{name}", by=UNWRITABLE | MISSING)


@pytest.mark.parametrize("name", ["kcore", "kallsyms", "keys", "interrupts", "sys/kernel/hostname"])
def test_proc_tells_little(lair: Lair, name: str) -> None:
    refused(lair, "read", f"/proc/{name}", by=MISSING | {EPERM})


@pytest.mark.parametrize("name", ["net/tcp", "net/unix", "net/dev"])
def test_its_network_is_empty(lair: Lair, name: str) -> None:
    outcome, _ = lair.attempt("read", f"/proc/{name}")
    assert len(outcome.said.splitlines()) <= 3
    assert "eth" not in outcome.said


def test_proc_shows_no_other_process(lair: Lair) -> None:
    for pid in (os.getpid(), lair.zygote.pid, 2, 3):
        refused(lair, "read", f"/proc/{pid}/environ", by=MISSING)
    refused(lair, "entries", "/proc", by={EACCES})


# Sockets ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET, socket.AF_VSOCK]
)
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW])
def test_no_socket_opens(lair: Lair, family: int, kind: int) -> None:
    refused(lair, "open_socket", int(family), int(kind), by=FORBIDDEN)


def test_no_pair_of_sockets_opens(lair: Lair) -> None:
    refused(lair, "pair", by=FORBIDDEN)


# Processes and the kernel -------------------------------------------------------------------------------------------


def test_no_other_process_is_reached(lair: Lair) -> None:
    for pid in (lair.zygote.pid, os.getpid(), os.getppid(), 1, 2, -1, 0):
        refused(lair, "send_signal", pid, signal.SIGKILL, by=FORBIDDEN)
        refused(lair, "system_call", "tgkill", pid + 5, pid + 5, signal.SIGKILL, by=FORBIDDEN)


def test_another_worker_is_not_reached(lair: Lair) -> None:
    other = lair.fork()
    with other.sock:
        for call in (("tkill", other.pid, 9), ("tgkill", other.number, other.number, 9), ("pidfd_open", other.pid, 0)):
            refused(lair, "system_call", *call, by=FORBIDDEN)
        refused(lair, "read", f"/proc/{other.pid}/mem", by=MISSING)
        assert lair.zygote.status(other) is None


def test_no_process_is_made_and_no_program_started(lair: Lair) -> None:
    for name in ("fork", "fork_for_ever", "execute"):
        refused(lair, name, by=FORBIDDEN)


@pytest.mark.parametrize("flag", [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000])
def test_no_thread_leaves_its_namespaces(lair: Lair, flag: int) -> None:
    as_thread = 0x10000 | 0x800 | 0x100
    refused(lair, "new_thread_flags", as_thread | flag, by=FORBIDDEN)
    refused(lair, "new_thread_flags", flag, by=FORBIDDEN)


@pytest.mark.parametrize("request_", [0x5412, 0x541C, 0x1_0000_5412, 0xFFFF_FFFF_0000_5412, 0x5403, 0x80047476])
def test_no_terminal_is_typed_into(lair: Lair, request_: int) -> None:
    refused(lair, "terminal_input", request_, by=FORBIDDEN)


def test_nobody_becomes_somebody_else(lair: Lair) -> None:
    refused(lair, "become", 0, by=FORBIDDEN)
    outcome, _ = lair.attempt("identity")
    nothing = "0000000000000000"
    assert outcome.said["pid"] == 1
    assert outcome.said["parent"] == 0
    assert outcome.said["uid"] == 65534
    assert [outcome.said[word] for word in ("CapPrm", "CapEff", "CapInh", "CapAmb")] == [nothing] * 4
    assert (outcome.said["NoNewPrivs"], outcome.said["Seccomp"]) == ("1", "2")


CALLS = """acct add_key bpf capset chroot clock_settime clone3 delete_module execveat fanotify_init finit_module
fsconfig fsmount fsopen init_module inotify_init1 io_uring_enter io_uring_register io_uring_setup ioprio_set kcmp
kexec_file_load kexec_load keyctl landlock_create_ruleset link linkat lookup_dcookie memfd_create memfd_secret mkdirat
mknodat mount mount_setattr move_mount move_pages mq_open msgget name_to_handle_at open_by_handle_at open_tree
perf_event_open personality pidfd_getfd pidfd_open pidfd_send_signal pivot_root process_madvise process_vm_readv
process_vm_writev ptrace quotactl reboot request_key rt_sigqueueinfo rt_tgsigqueueinfo sched_setscheduler seccomp
semget sendmsg setgid setgroups setdomainname sethostname setns setpriority settimeofday setuid shmget socket
socketpair splice swapoff swapon symlinkat sync syslog tee tkill umount2 unshare userfaultfd vhangup vmsplice"""


def test_the_kernel_s_other_doors_are_shut(lair: Lair) -> None:
    """Each is refused by the list itself, before the kernel looks at what it was given."""
    outcome, _ = lair.attempt("system_calls", CALLS.split())
    assert {name: error for name, error in outcome.said.items() if error not in (EPERM, ENOSYS)} == {}
    assert [name for name, error in outcome.said.items() if error == ENOSYS] == ["clone3"]


@pytest.mark.parametrize("option", [1, 4, 8, 22, 24, 28, 33, 35, 36, 38, 47, 0x59616D61])
def test_no_promise_is_taken_back(lair: Lair, option: int) -> None:
    """prctl: the death signal, dumpable, capabilities, seccomp, secure bits, …, whose tracer one wants to be."""
    refused(lair, "system_call", "prctl", option, 0, 0, 0, 0, by=FORBIDDEN)


# Too much of everything ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eat_memory", "eat_mappings"])
def test_memory_ends(lair: Lair, name: str) -> None:
    outcome, end = lair.attempt(name, memory_bytes=400 * MIB)
    assert outcome.error in (-1, 12), outcome
    assert end.status == 0


def test_resident_memory_ends_where_address_space_does_not(lair: Lair) -> None:
    outcome, end = lair.attempt("eat_mappings", memory_bytes=200 * MIB, address_space=False)
    assert (outcome, killed(end), end.cause) == (None, True, "memory")


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
def test_private_folders_are_small(lair: Lair, folder: str) -> None:
    refused(lair, "fill", folder, MIB, by={ENOSPC})
    refused(lair, "many_files", folder, by={ENOSPC})


def test_one_file_is_no_larger_than_the_job_s_disk(lair: Lair) -> None:
    refused(lair, "fill", str(lair.out), 1024 * MIB, by={EFBIG})


def test_many_files_are_no_larger_than_the_job_s_disk(lair: Lair) -> None:
    outcome, end = lair.attempt("fill", str(lair.out), 16 * MIB)
    assert (outcome, killed(end), end.cause) == (None, True, "disk")


def test_a_flood_of_empty_files_ends(lair: Lair) -> None:
    outcome, end = lair.attempt("many_files", str(lair.out))
    assert (outcome, killed(end), end.cause) == (None, True, "disk")


def test_descriptors_end(lair: Lair) -> None:
    refused(lair, "many_descriptors", by={EMFILE})


def test_threads_end(lair: Lair) -> None:
    outcome, end = lair.attempt("many_threads", memory_bytes=0)
    assert (outcome is None and end.cause == "threads") or outcome.said == "RuntimeError"


def test_who_spins_and_hears_no_signal_ends_by_processor_time(lair: Lair) -> None:
    outcome, end = lair.attempt("deaf_and_busy", cpu_s=1)
    assert (outcome, killed(end), end.cause) == (None, True, "processor")


def test_who_sleeps_for_ever_ends_by_the_clock(lair: Lair) -> None:
    outcome, end = lair.attempt("sleep_for_ever", wall_s=0.3)
    assert (outcome, killed(end), end.cause) == (None, True, "time")


def test_the_watchdog_looks_however_busy_its_zygote_is_kept(lair: Lair) -> None:
    worker = lair.fork(wall_s=0.5)
    with worker.sock:
        while lair.zygote.status(worker) is None:
            pass
    assert lair.zygote.end_of(worker).cause == "time"


def test_a_crash_leaves_no_core(lair: Lair) -> None:
    outcome, end = lair.attempt("fall")
    assert outcome is None
    assert end.status is not None
    assert end.status < 0
    assert os.listdir(lair.out) == []


def test_an_endless_answer_is_cut_off(lair: Lair) -> None:
    worker = lair.fork()
    with worker.sock:
        say(worker.sock, hostile.Probe(name="flood"))
        assert worker.sock.recv(4) == b"\xff" * 4
    assert lair.end(worker).status is not None


# What there is to see -----------------------------------------------------------------------------------------------


def test_only_the_socket_is_inherited(lair: Lair) -> None:
    outcome, _ = lair.attempt("descriptors")
    held = outcome.said
    assert {held.pop(fd) for fd in ("0", "1", "2")} == {"/dev/null"}
    assert len(held) == 1
    assert next(iter(held.values())).startswith("socket:")


def test_the_environment_tells_nothing(lair: Lair) -> None:
    outcome, _ = lair.attempt("variables")
    threads = {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"}
    assert set(outcome.said) == threads | {"CUDA_VISIBLE_DEVICES", "LC_CTYPE", "PWD", "PYTHONPATH"}
