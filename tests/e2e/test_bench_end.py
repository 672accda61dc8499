# SPDX-License-Identifier: Apache-2.0
"""A bench that is told to stop takes away what it started; so does a newcomer's machine."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.newcomer import Newcomer

ROOT = Path(__file__).resolve().parents[2]
_WAITING = """
import sys, time, types
from bench import __main__ as runner

def run():
    try:
        print("began", flush=True)
        time.sleep(600)
    finally:
        print("cleared", flush=True)

bench = types.ModuleType("bench.worker_bench")
bench.run = run
sys.modules["bench.worker_bench"] = bench
sys.exit(runner.main(["worker"]))
"""


def test_a_bench_that_is_told_to_stop_clears_up_first() -> None:
    with subprocess.Popen([sys.executable, "-c", _WAITING], cwd=ROOT, stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout is not None
        assert bench.stdout.readline() == "began\n"
        bench.send_signal(signal.SIGTERM)
        assert bench.stdout.read() == "cleared\n"
        assert bench.wait(60) == 128 + signal.SIGTERM


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_nothing_runs_on_in_a_home_that_was_left(tmp_path: Path) -> None:
    """Not even what went off into a session of its own, as a worker does."""
    home = tmp_path / "home"
    home.mkdir()
    person = Newcomer(home, {"HOME": str(home), "PATH": "/usr/bin:/bin"})
    other = subprocess.Popen(["/bin/sleep", "600"], env={**os.environ, "HOME": str(tmp_path)})
    words = ["/bin/sh", "-c", "setsid /bin/sleep 600 >/dev/null & echo $!"]
    told = subprocess.run(words, env=person.env, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    try:
        with person:
            assert runs(int(told))
        assert not runs(int(told))
        assert other.poll() is None, "nobody else's"
    finally:
        other.kill()
        other.wait()
