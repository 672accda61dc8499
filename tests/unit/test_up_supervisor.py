# SPDX-License-Identifier: Apache-2.0
"""`qubix up`'s supervisor over real processes: order, restarts, and nothing left whatever happens."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

GONE_S = 30.0
Start = Callable[..., "Run"]


class Run:
    """A supervisor in a process of its own; `story` is what its children wrote."""

    def __init__(self, folder: Path, parts: tuple[str, ...], ready_s: float) -> None:
        self.folder = folder
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fake_parts", "supervise", str(folder), str(ready_s), *parts],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def lines_until(self, wanted: str) -> list[str]:
        assert self.popen.stdout is not None
        found = []
        for line in self.popen.stdout:
            found.append(line.strip())
            if line.startswith(wanted):
                return found
        raise AssertionError(f"it ended without saying {wanted!r}: {found}")

    @property
    def story(self) -> list[str]:
        path = self.folder / "story"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def pids(self) -> list[int]:
        return [int(line.split()[2]) for line in self.story if line.startswith("started")]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[list[str], int]:
        self.popen.send_signal(number)
        out, _ = self.popen.communicate(timeout=GONE_S)
        return out.splitlines(), self.popen.returncode

    def wait_gone(self) -> None:
        """Every child and grandchild has ended."""
        end = time.monotonic() + GONE_S
        while left := [pid for pid in self.pids if alive(pid)]:
            assert time.monotonic() < end, f"still running: {left} of {self.story}"
            time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def begin(*parts: str, ready_s: float = 30.0) -> Run:
        runs.append(Run(tmp_path, parts, ready_s))
        return runs[-1]

    yield begin
    for run in runs:
        run.popen.kill()
        run.popen.communicate(timeout=GONE_S)
        for pid in run.pids:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def names(story: list[str], verb: str) -> list[str]:
    return [line.split()[1] for line in story if line.startswith(verb)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_parts_start_in_order_and_stop_in_reverse(start: Start, number: signal.Signals) -> None:
    run = start("one:ready", "two:ready", "three:ready")
    assert run.lines_until("open") == ["ready one", "ready two", "ready three", "open"]
    assert run.stop(number) == ([f"stopping {number.name}", "done"], 0)
    assert names(run.story, "started") == ["one", "two", "three"]
    assert names(run.story, "stopped") == ["three", "two", "one"]
    run.wait_gone()


def test_a_part_is_told_what_the_one_before_said(start: Start) -> None:
    run = start("one:ready", "two:ready")
    run.lines_until("open")
    first, second = (line.split() for line in run.story)
    assert second[3] == f"one-{first[2]}"


def test_a_child_that_dies_is_started_again_with_those_that_relied_on_it(start: Start) -> None:
    run = start("one:ready", "two:ready")
    run.lines_until("open")
    os.kill(run.pids[0], signal.SIGKILL)
    assert run.lines_until("ready two")[0] == "died one: was killed by signal 9"
    run.stop()
    assert names(run.story, "started") == ["one", "two", "one", "two"]
    run.wait_gone()


def test_a_child_that_dies_again_and_again_ends_it_all(start: Start) -> None:
    run = start("one:ready", "two:dies")
    told = run.lines_until("failed")
    assert "ended with status 4" in told[-1]
    run.lines_until("two says hello")
    assert run.popen.wait(GONE_S) == 1
    assert len(names(run.story, "started")) > 3
    run.wait_gone()


def test_a_child_that_fails_at_the_start_is_shown_with_its_last_words(start: Start) -> None:
    run = start("one:ready", "two:fails", "three:ready")
    out, _ = run.popen.communicate(timeout=GONE_S)
    assert "the two ended with status 3 before it was ready" in out
    assert "two says hello" in out
    assert run.popen.returncode == 1
    assert names(run.story, "started") == ["one", "two"]
    run.wait_gone()


def test_a_child_that_never_gets_ready_is_given_up(start: Start) -> None:
    run = start("one:ready", "two:mute", ready_s=1.0)
    assert "was not ready within 1 s" in run.popen.communicate(timeout=GONE_S)[0]
    assert run.popen.returncode == 1
    run.wait_gone()


def test_stopping_while_a_child_starts(start: Start) -> None:
    run = start("one:ready", "two:mute")
    run.lines_until("ready one")
    out, status = run.stop(signal.SIGINT)
    assert (out[-1], status) == ("done", 0)
    run.wait_gone()


def test_a_child_that_ignores_sigterm_is_killed_with_its_children(start: Start) -> None:
    run = start("one:ready", "two:stubborn")
    run.lines_until("open")
    assert run.stop()[1] == 0
    assert len(run.pids) == 3
    assert names(run.story, "stopped") == ["one"]
    run.wait_gone()


@pytest.mark.parametrize("whole_group", [False, True])
def test_nothing_is_left_when_the_supervisor_is_killed(start: Start, whole_group: bool) -> None:
    run = start("one:ready", "two:stubborn", "three:ready")
    run.lines_until("open")
    if whole_group:
        os.killpg(run.popen.pid, signal.SIGKILL)
    else:
        run.popen.kill()
    run.wait_gone()
    assert len(run.pids) == 4
    assert set(names(run.story, "stopped")) == {"one", "three"}, "those that obey may end in their own way"
