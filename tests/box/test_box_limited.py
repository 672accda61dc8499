# SPDX-License-Identifier: Apache-2.0
"""Where no box can be made: what a limited child still cannot do, and that everybody is told that it is no box."""

import os
import signal
import socket
from collections.abc import Iterator
from errno import EACCES, EMFILE, EPERM
from pathlib import Path

import pytest

from qubix_kernels.box import machine
from qubix_kernels.box.machine import Isolation
from tests.box.world import MIB, Lair, killed


@pytest.fixture(scope="module")
def shared_lair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lair]:
    made = Lair(tmp_path_factory.mktemp("lair"), Isolation("limited", "for this test"))
    yield made
    made.close()


@pytest.fixture
def lair(shared_lair: Lair) -> Iterator[Lair]:
    yield shared_lair
    shared_lair.check_health()


def test_it_reads_neither_secrets_nor_another_s_folder(lair: Lair) -> None:
    for path in ("/etc/shadow", str(lair.secret), str(lair.others / "input"), f"/proc/{os.getpid()}/environ"):
        outcome, _ = lair.attempt("read", path)
        assert outcome.error == EACCES, path


def test_it_writes_nowhere_but_where_it_should(lair: Lair) -> None:
    for folder in ("/tmp", "/dev/shm", "/usr", str(lair.mine), str(lair.others), str(lair.folder)):
        outcome, _ = lair.attempt("write", f"{folder}/planted")
        assert outcome.error == EACCES, folder
    outcome, _ = lair.attempt("write", str(lair.out / "fine"))
    assert outcome.error == 0


def test_it_opens_no_socket_reaches_no_process_and_starts_no_program(lair: Lair) -> None:
    attempts = [("open_socket", int(family), int(socket.SOCK_STREAM)) for family in (socket.AF_INET, socket.AF_UNIX)]
    attempts += [("send_signal", os.getpid(), signal.SIGKILL), ("send_signal", lair.zygote.pid, signal.SIGKILL)]
    for name, *words in [*attempts, ("fork",), ("execute",), ("become", 0), ("terminal_input", 0x5412)]:
        outcome, _ = lair.attempt(name, *words)
        assert outcome.error == EPERM, name
    for call in ("ptrace", "process_vm_readv", "tgkill", "unshare", "mount", "bpf", "io_uring_setup", "shmget"):
        outcome, _ = lair.attempt("system_calls", [call])
        assert outcome.said == {call: EPERM}


def test_it_has_no_privilege(lair: Lair) -> None:
    outcome, _ = lair.attempt("identity")
    nothing = "0000000000000000"
    assert [outcome.said[word] for word in ("CapPrm", "CapEff", "CapInh", "CapAmb")] == [nothing] * 4
    assert (outcome.said["NoNewPrivs"], outcome.said["Seccomp"]) == ("1", "2")


def test_its_memory_disk_descriptors_and_time_end(lair: Lair) -> None:
    outcome, end = lair.attempt("eat_memory", memory_bytes=400 * MIB)
    assert (outcome.said, end.status) == ("MemoryError", 0)
    outcome, _ = lair.attempt("many_descriptors")
    assert outcome.error == EMFILE
    outcome, end = lair.attempt("deaf_and_busy", cpu_s=1)
    assert (outcome, end.cause) == (None, "processor")
    outcome, end = lair.attempt("sleep_for_ever", wall_s=0.3)
    assert (outcome, killed(end), end.cause) == (None, True, "time")
    outcome, end = lair.attempt("fill", str(lair.out), 16 * MIB)
    assert (outcome, killed(end), end.cause) == (None, True, "disk")


# Who is told --------------------------------------------------------------------------------------------------------


def test_a_machine_without_bubblewrap_says_what_to_install() -> None:
    found = machine.tried(None)
    assert found.kind == "limited"
    assert "install the package bubblewrap" in found.reason


def test_a_machine_that_forbids_namespaces_says_why_and_what_to_do(tmp_path: Path) -> None:
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    found = machine.tried(str(refusing))
    assert found.kind == "limited"
    assert "No permissions to create new namespace" in found.reason
    assert "sysctl" in found.reason or "container" in found.reason


def test_what_is_wished_is_had_or_refused(caplog: pytest.LogCaptureFixture) -> None:
    assert machine.wished("auto", "X").kind == machine.wished("require", "X").kind == "box"
    assert machine.wished("limited", "X").kind == "limited"

    def nothing_here() -> Isolation:
        return Isolation("limited", "no namespaces here")

    with pytest.raises(machine.NoBox, match="X=require, but no box can be made: no namespaces here"):
        machine.wished("require", "X", nothing_here)
    assert machine.wished("auto", "X", nothing_here).kind == "limited"
    assert [record.message for record in caplog.records] == ["box.none"]
