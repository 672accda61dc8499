# SPDX-License-Identifier: Apache-2.0
"""`qubix up` itself: the lock, the start-up log, the supervisor."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from qubix.errors import StartFailed
from qubix.settings import TOKEN_FILE
from qubix.up import desktop, lock
from qubix.up.child import Child
from qubix.up.market import Plan, environment, parts, where_it_runs
from qubix.up.supervisor import Env, Part, Supervisor


class Printed:
    """The start-up log: what runs where, one line a part."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, *words: str | tuple[str, str]) -> None:
        self._console.print(Text.assemble(*words), soft_wrap=True)

    def started(self, part: Part, child: Child, seconds: float) -> None:
        where = where_it_runs(part.name, child.info or {})
        self.say(("  ready  ", "green"), f"{part.name:<12} process {child.pid:<8} {seconds:5.1f} s  ", (where, "dim"))

    def died(self, part: Part, how: str, restart_s: float) -> None:
        self.say(("  died   ", "yellow"), f"{part.name:<12} {how}; it is started again in {restart_s:g} s")

    def stopping(self, why: str) -> None:
        self.say(("  stop   ", "yellow"), f"stopping everything ({why})")


def up(plan: Plan, outside: Mapping[str, str], console: Console, ready_fd: int | None = None) -> None:
    """Until Ctrl-C or SIGTERM. Raises `StartFailed`."""
    _make_folder(plan.data_dir)
    _make_folder(plan.logs_dir)
    printed = Printed(console)
    with lock.held(plan.data_dir):
        printed.say(("QUBIX market", "bold"), f" in {plan.data_dir}, logs in {plan.logs_dir}")
        new = not (plan.data_dir / TOKEN_FILE).exists()
        supervisor = Supervisor(parts(plan, outside), environment(plan, outside), plan.logs_dir, printed)
        supervisor.run(lambda env: _ready(printed, plan, env, new, ready_fd))
        printed.say(("  done   ", "green"), "nothing is left running")


def _make_folder(path: Path) -> None:
    """Others may pass through: as root, PostgreSQL runs as a user of its own. Secrets in it are files of mode 0600."""
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as problem:
        raise StartFailed(
            f"cannot make {path}: {problem.strerror}", remedy="Give --data-dir a folder of yours."
        ) from None


def _ready(printed: Printed, plan: Plan, env: Env, new: bool, ready_fd: int | None) -> None:
    url, token = env["QUBIX_COORDINATOR_URL"], plan.data_dir / TOKEN_FILE
    printed.say("The market is open: ", (url, "bold"))
    printed.say(*_network(env))
    if new:
        printed.say("Developer token (shown this once): ", (token.read_text(encoding="ascii").strip(), "bold"))
    printed.say(f"The developer token is kept in {token}; `qubix` on this machine finds it there.")
    printed.say("Ctrl-C stops everything.")
    sys.stdout.flush()
    if plan.browser:
        desktop.show(url)
    if ready_fd is not None:
        _tell_ready(
            ready_fd, {"process": "up", "pid": os.getpid(), "url": url, "data_dir": str(plan.data_dir)} | _told(env)
        )


def _told(env: Env) -> dict[str, Any]:
    return {"network": env.get("QUBIX_NETWORK") or "devnet", "qubic_url": env["QUBIX_QUBIC_URL"]}


def _network(env: Env) -> tuple[str | tuple[str, str], ...]:
    """Which money this is. On the devnet it is nobody's."""
    told = _told(env)
    kind = ", play money" if told["network"] == "devnet" else ""
    return ("Qubic network: ", (f"{told['network']}{kind}", "bold"), f" at {told['qubic_url']}")


def _tell_ready(descriptor: int, info: dict[str, Any]) -> None:
    """The ready line that every QUBIX process gives to whoever started it."""
    with os.fdopen(descriptor, "w") as out:
        out.write(json.dumps(info) + "\n")
