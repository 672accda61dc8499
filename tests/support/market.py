# SPDX-License-Identifier: Apache-2.0
"""A whole market of real processes for end-to-end tests and benches: each part can be stopped or killed by itself."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from qubix_protocol.keys import SigningKey
from tests.support.ports import held_port

READY_S = 240.0
STOP_S = 30.0
_MEASURING: Final = (
    "qubix_node",
    "tests.support.chunked_node",
    "tests.support.cheating_node",
    "tests.support.unchecked_market",
)
"""Nodes that measure the processor as every node does, for some seconds."""


class ProcessFailed(Exception):
    """A process of the market did not come up; the text ends with its log."""


class Process:
    """One process with its log in a file and its ready line read from a pipe."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        read, write = os.pipe()
        self.name, self.log = name, log
        with log.open("ab") as out:
            self.popen = subprocess.Popen(
                [sys.executable, *command],
                env={**os.environ, **env, "QUBIX_READY_FD": str(write)},
                pass_fds=[write],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        os.close(write)
        self._ready_fd = read
        self.info: dict[str, Any] = {}

    def wait_ready(self) -> Self:
        line = self._ready_line()
        if not line:
            self.stop()
            raise ProcessFailed(f"{self.name} did not become ready:\n{self.tail()}")
        self.info = json.loads(line)
        return self

    def _ready_line(self) -> bytes:
        deadline, line = time.monotonic() + READY_S, b""
        try:
            while not line.endswith(b"\n"):
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([self._ready_fd], [], [], left)[0]:
                    return b""
                more = os.read(self._ready_fd, 4096)
                if not more:
                    return line
                line += more
        finally:
            os.close(self._ready_fd)
        return line

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.popen.kill()
        self.popen.wait(STOP_S)

    def stop(self) -> int:
        """SIGTERM; its exit code. A process that does not obey is killed and the test told."""
        if self.running:
            self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ProcessFailed(f"{self.name} did not stop on SIGTERM:\n{self.tail()}") from None

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Market:
    """`with Market(folder) as market:` starts database, coordinator, gateway and verifier; nodes are added by name."""

    _rates: ClassVar[dict[str, tuple[bytes, bytes]]] = {}
    """By the number of threads: how the name of the device ends that was measured, and its file."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self.env = {
            "QUBIX_DATA_DIR": str(folder / "data"),
            "QUBIX_NETWORK": "devnet",
            "QUBIX_HTTP_PORT": "0",
            "QUBIX_TRIAL_EVERY_S": "0",  # hardware is tried where a test is about that
            **env,
        }
        self.parts: dict[str, Process] = {}
        self._ports: dict[str, str] = {}
        self._held = contextlib.ExitStack()

    def port_of(self, name: str) -> str:
        """A part's port, which stays its own while it is down."""
        if name not in self._ports:
            self._ports[name] = str(self._held.enter_context(held_port()))
        return self._ports[name]

    def __enter__(self) -> Self:
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        (self.folder / "data").chmod(0o755)
        try:
            self.start_database()
            self.start_coordinator()
            self.start_gateway()
            self.start_verifier()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Everything ends, whatever state it is in: all at once, but the database when its clients are gone."""
        last = [process for name, process in self.parts.items() if name == "database"]
        for together in ([process for process in self.parts.values() if process not in last], last):
            for process in together:
                if process.running:
                    process.popen.send_signal(signal.SIGTERM)
            for process in together:
                try:
                    process.popen.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
        self._held.close()
        self._ports.clear()

    @property
    def url(self) -> str:
        return str(self.parts["coordinator"].info["url"])

    @property
    def token(self) -> str:
        return (self.folder / "data" / "developer.token").read_text().strip()

    def start(self, name: str, module: str, *args: str, **env: str) -> Process:
        log = self.folder / f"{name}.log"
        process = Process(name, ["-m", module, *args], {**self.env, **env}, log)
        self.parts[name] = process
        return process.wait_ready()

    def start_database(self) -> Process:
        process = self.start("database", "qubix_coordinator.db.embedded")
        self.env["DATABASE_URL"] = str(process.info["database_url"])
        return process

    def start_coordinator(self) -> Process:
        self.env["QUBIX_HTTP_PORT"] = self.port_of("coordinator")
        process = self.start("coordinator", "qubix_coordinator")
        self.env["QUBIX_COORDINATOR_URL"] = str(process.info["url"])
        return process

    def start_gateway(self, name: str = "gateway") -> Process:
        token = (self.folder / "data" / "gateway.token").read_text().strip()
        process = self.start(name, "qubix_mesh.gateway", QUBIX_GATEWAY_TOKEN=token, QUBIX_DATA_DIR=str(self._own(name)))
        self.env["QUBIX_BOOTSTRAP"] = ",".join(process.info["addresses"])
        return process

    def start_verifier(self, name: str = "verifier") -> Process:
        return self.start(name, "qubix_coordinator.jobs.verify_process")

    def start_node(self, name: str = "node", module: str = "qubix_node", *args: str, **env: str) -> Process:
        """What the first node measured of this processor, the others are given, in this market and the next."""
        told = {"QUBIX_NODE_DEVICES": "cpu", "QUBIX_DATA_DIR": str(self._own(name)), **env}
        if module not in _MEASURING or told["QUBIX_NODE_DEVICES"] != "cpu":
            return self.start(name, module, *args, **told)
        threads, rates = told.get("QUBIX_NODE_THREADS", ""), self._own(name) / "node" / "rates.json"
        self._give_rates(name, rates, threads)
        process = self.start(name, module, *args, **told)
        if threads not in self._rates and rates.exists():
            self._rates[threads] = (_device_suffix(process.info["peer_id"]), rates.read_bytes())
        return process

    def _give_rates(self, name: str, rates: Path, threads: str) -> None:
        """They are kept by device, whose name ends like its node's."""
        key, file = SigningKey.generate(), self._own(name) / "node.key"
        if threads not in self._rates or rates.exists() or file.exists():
            return
        file.touch(0o600)
        file.write_bytes(key.seed)
        rates.parent.mkdir(exist_ok=True, mode=0o700)
        suffix, data = self._rates[threads]
        rates.write_bytes(data.replace(suffix, _device_suffix(key.peer_id)))

    def _own(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def logs(self) -> str:
        return "\n".join(f"== {process.name}\n{process.tail(30)}" for process in self.parts.values())


def _device_suffix(peer_id: str) -> bytes:
    return peer_id[-12:].encode()
