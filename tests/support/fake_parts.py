# SPDX-License-Identifier: Apache-2.0
"""Children for the supervisor's tests, and a supervisor over them in a process of its own.

`python -m tests.support.fake_parts supervise FOLDER READY_S NAME:BEHAVIOUR …` prints one line for what happens.
Each child writes `started NAME PID` and `stopped NAME` to FOLDER/story, so that the order can be read.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from qubix.errors import StartFailed
from qubix.up import rules
from qubix.up.child import Child
from qubix.up.supervisor import Part, Supervisor


def tell(folder: Path, words: str) -> None:
    with (folder / "story").open("a") as file:
        file.write(words + "\n")


def child(folder: Path, name: str, behaviour: str) -> NoReturn:
    tell(folder, f"started {name} {os.getpid()} {os.environ.get('SEEN_BEFORE', '')}".strip())
    print(f"{name} says hello", flush=True)
    if behaviour == "mute":
        time.sleep(60)
    if behaviour == "fails":
        sys.exit(3)
    stop(folder, name, behaviour)
    if behaviour == "stubborn":
        grandchild = subprocess.Popen([sys.executable, "-c", IGNORING])
        tell(folder, f"started {name}-grandchild {grandchild.pid}")
    ready(name)
    if behaviour == "dies":
        sys.exit(4)
    while True:
        time.sleep(60)


IGNORING = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


def stop(folder: Path, name: str, behaviour: str) -> None:
    def leave(number: int, frame: object) -> NoReturn:
        tell(folder, f"stopped {name}")
        sys.exit(0)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "stubborn" else leave)


def ready(name: str) -> None:
    descriptor = int(os.environ["QUBIX_READY_FD"])
    os.write(descriptor, json.dumps({"process": name, "pid": os.getpid()}).encode() + b"\n")
    os.close(descriptor)


class Story:
    def started(self, part: Part, child: Child, seconds: float) -> None:
        print(f"ready {part.name}", flush=True)

    def died(self, part: Part, how: str, restart_s: float) -> None:
        print(f"died {part.name}: {how}", flush=True)

    def stopping(self, why: str) -> None:
        print(f"stopping {why}", flush=True)


def supervise(folder: Path, ready_s: float, wanted: list[str]) -> None:
    rules.FIRST_S = 0.02  # type: ignore[misc]  # no test waits as long as a market does between two restarts

    def exports(info: dict[str, Any]) -> dict[str, str]:
        return {"SEEN_BEFORE": f"{info['process']}-{info['pid']}"}

    parts = []
    for one in wanted:
        name, _, behaviour = one.partition(":")
        command = [sys.executable, "-m", "tests.support.fake_parts", "child", str(folder), name, behaviour]
        parts.append(Part(name=name, command=command, exports=exports))
    try:
        Supervisor(parts, dict(os.environ), folder, Story(), ready_s=ready_s).run(lambda env: print("open", flush=True))
    except StartFailed as failure:
        print(f"failed {failure.problem}", flush=True)
        sys.exit(1)
    print("done", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "child":
        child(Path(sys.argv[2]), sys.argv[3], sys.argv[4])
    supervise(Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
