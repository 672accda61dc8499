# SPDX-License-Identifier: Apache-2.0
"""What starts the worker at login and keeps it running: systemd's user session, launchd, or, without either, a process
of our own and an entry for graphical logins.

Each has one file outside the worker's folder and takes it away again.
"""

import os
import plistlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import psutil

from qubix_node.service.layout import NAME, Layout
from qubix_node.service.trouble import Trouble

_COMMAND_S: Final = 60
_STOP_S: Final = 30.0
_LABEL: Final = "org.qubix.worker"


class Supervisor(Protocol):
    @property
    def name(self) -> str: ...

    def register(self) -> None:
        """Writes the service down and starts it at each login. Again: as if for the first time. Raises Trouble."""
        ...

    def start(self) -> None:
        """Now. Raises Trouble."""
        ...

    def stop(self) -> None:
        """Waits until it has ended; fine when nothing runs."""
        ...

    def unregister(self) -> None:
        """Stops it, and leaves nothing."""
        ...

    def running(self) -> bool: ...

    def hint(self) -> str:
        """What a person should know about this way; "" when there is nothing to say."""
        ...


def chosen(layout: Layout, env: Mapping[str, str]) -> Supervisor:
    home = Path(env.get("HOME") or Path.home())
    if sys.platform == "darwin":
        return Launchd(layout, home / "Library/LaunchAgents" / f"{_LABEL}.plist")
    config = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    if shutil.which("systemctl") and _says("systemctl", "--user", "show-environment"):
        return SystemdUser(layout, config / "systemd/user" / f"{NAME}.service")
    return Plain(layout, config / "autostart" / f"{NAME}.desktop", dict(env))


def _says(*command: str) -> bool:
    """Whether it succeeds."""
    try:
        return subprocess.run(command, capture_output=True, timeout=_COMMAND_S, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _run(title: str, *command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
        said = (done.stderr or done.stdout).strip()[-300:]
        if done.returncode == 0:
            return
    except (OSError, subprocess.TimeoutExpired) as problem:
        said = str(problem)
    raise Trouble(
        title, f"`{' '.join(command)}` failed: {said}", "a service that starts", "Mend what it says, then run again"
    )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@dataclass(frozen=True, slots=True)
class SystemdUser:
    layout: Layout
    unit: Path
    name: str = "systemd, user session"

    def register(self) -> None:
        _write(self.unit, self.text().encode())
        _run("Service", "systemctl", "--user", "daemon-reload")
        _run("Service", "systemctl", "--user", "enable", f"{NAME}.service")

    def text(self) -> str:
        command = str(self.layout.command).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
        return (
            "[Unit]\nDescription=QUBIX worker: shares this machine's GPU\nAfter=network-online.target\n\n"
            f'[Service]\nExecStart="{command}" run\nRestart=always\nRestartSec=5\nTimeoutStopSec=30\n\n'
            "[Install]\nWantedBy=default.target\n"
        )

    def start(self) -> None:
        _run("Service", "systemctl", "--user", "restart", f"{NAME}.service")

    def stop(self) -> None:
        _says("systemctl", "--user", "stop", f"{NAME}.service")

    def unregister(self) -> None:
        _says("systemctl", "--user", "disable", "--now", f"{NAME}.service")
        self.unit.unlink(missing_ok=True)
        _says("systemctl", "--user", "daemon-reload")

    def running(self) -> bool:
        return _says("systemctl", "--user", "is-active", "--quiet", f"{NAME}.service")

    def hint(self) -> str:
        return "It stops when you log out. To keep it running: loginctl enable-linger"


@dataclass(frozen=True, slots=True)
class Launchd:
    layout: Layout
    agent: Path
    name: str = "launchd"

    @property
    def _domain(self) -> str:
        return f"gui/{os.getuid()}"

    def register(self) -> None:
        _says("launchctl", "bootout", f"{self._domain}/{_LABEL}")
        _write(self.agent, self.text())

    def text(self) -> bytes:
        return plistlib.dumps(
            {
                "Label": _LABEL,
                "ProgramArguments": [str(self.layout.command), "run"],
                "RunAtLoad": True,
                "KeepAlive": True,
                "StandardOutPath": str(self.layout.log),
                "StandardErrorPath": str(self.layout.log),
            }
        )

    def start(self) -> None:
        _says("launchctl", "bootout", f"{self._domain}/{_LABEL}")
        _run("Service", "launchctl", "bootstrap", self._domain, str(self.agent))

    def stop(self) -> None:
        _says("launchctl", "bootout", f"{self._domain}/{_LABEL}")

    def unregister(self) -> None:
        self.stop()
        self.agent.unlink(missing_ok=True)

    def running(self) -> bool:
        return _says("launchctl", "print", f"{self._domain}/{_LABEL}")

    def hint(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Plain:
    """Where there is no user session of systemd: containers, servers without one, some desktops."""

    layout: Layout
    entry: Path
    env: Mapping[str, str]
    name: str = "a process of its own"

    def register(self) -> None:
        _write(self.entry, self.text().encode())

    def text(self) -> str:
        command = str(self.layout.command).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
        return f'[Desktop Entry]\nType=Application\nName=QUBIX worker\nExec="{command}" start\nTerminal=false\n'

    def start(self) -> None:
        self.stop()
        with self.layout.log.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            words = [str(self.layout.command), "run"]
            streams = [(os.POSIX_SPAWN_DUP2, source.fileno(), to) for source, to in ((nothing, 0), (log, 1), (log, 2))]
            # In a session of its own, so that it outlives this process and its terminal.
            pid = os.posix_spawn(words[0], words, dict(self.env), file_actions=streams, setsid=True)
        self.layout.pid.write_text(f"{pid} {_began(pid)}\n")

    def stop(self) -> None:
        found = self._process()
        if found is not None:
            found.send_signal(signal.SIGTERM)
            try:
                found.wait(_STOP_S)
            except psutil.TimeoutExpired:
                found.kill()
        self.layout.pid.unlink(missing_ok=True)

    def unregister(self) -> None:
        self.stop()
        self.entry.unlink(missing_ok=True)

    def running(self) -> bool:
        return self._process() is not None

    def _process(self) -> psutil.Process | None:
        """None also for a process that got the number of ours after it had ended: it began at another time."""
        try:
            pid, began = self.layout.pid.read_text().split()
            return psutil.Process(int(pid)) if began and _began(int(pid)) == began else None
        except (OSError, ValueError, psutil.Error):
            return None

    def hint(self) -> str:
        return (
            "There is no systemd user session here: the worker runs until the machine stops, and starts again at a"
            f" graphical login. Otherwise start it with: {self.layout.command} start"
        )


def _began(pid: int) -> str:
    """When a process began, in the kernel's own count, which no clock that is set moves; "" when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]
