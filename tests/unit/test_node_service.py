# SPDX-License-Identifier: Apache-2.0
"""The worker that installed itself: its folder, what starts it at login, what it says when something is wrong.

systemctl and launchctl are stand-ins that write down how they were called; the plain process is a real one.
"""

import json
import os
import plistlib
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from qubix_node.service import install as installing
from qubix_node.service.__main__ import main
from qubix_node.service.install import Worker
from qubix_node.service.layout import Layout, read_settings, switch, write_command, write_settings
from qubix_node.service.market import Market
from qubix_node.service.supervisors import Launchd, Plain, Supervisor, SystemdUser, chosen
from qubix_node.service.trouble import Trouble
from qubix_protocol.api import NetworkView
from qubix_protocol.envelope import open_envelope
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Message
from qubix_protocol.pairing import NodePairingView, Pair, PairedDevice, PairingState, fingerprint
from qubix_protocol.worker import NodeAsk, NodeSelfView

COORDINATOR = SigningKey(b"c" * 32)
DEVICE = PairedDevice(listing_id="00000000-0000-0000-0000-000000000000", model="RTX", online=True, verified=False)
TOLD = {
    "QUBIX_COORDINATOR_URL": "http://market",
    "QUBIX_COORDINATOR_KEY": COORDINATOR.public.hex(),
    "QUBIX_NETWORK": "devnet",
}


class FakeCoordinator:
    """Answers what an installed worker asks; `state` is of its pairing."""

    def __init__(self) -> None:
        self.state, self.paired, self.devices, self.balance_qu = PairingState.SEEN, False, (DEVICE,), 0
        self.key = COORDINATOR
        self.said: list[Message] = []
        self.away = False

    def market(self) -> Market:
        client = httpx.Client(transport=httpx.MockTransport(self._answer))
        return Market(client, "http://market", COORDINATOR.public.hex(), "devnet")

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("nobody there")
        if request.url.path == "/api/v1/network":
            return self._json(
                NetworkView(
                    network="devnet",
                    coordinator_key=self.key.public.hex(),
                    protocol_version=1,
                    fee_bps=0,
                    gateways=(),
                    regions=("a",),
                    clock_ms=time.time_ns() // 1_000_000,
                )
            )
        opened = open_envelope(
            request.content,
            network="devnet",
            audience=COORDINATOR.public,
            now_ms=time.time_ns() // 1_000_000,
            limit_bytes=9999,
        )
        if request.url.path == "/api/v1/nodes/pair":
            self.said.append(opened.body(Pair))
            return self._json(NodePairingView(state=self.state, fingerprint=""))
        self.said.append(opened.body(NodeAsk))
        view = NodeSelfView(fingerprint="", paired=self.paired, own_balance_qu=self.balance_qu, devices=self.devices)
        return self._json(view)

    @staticmethod
    def _json(view: Any) -> httpx.Response:
        return httpx.Response(200, content=msgspec.json.encode(view))


class FakeSupervisor:
    """Keeps what was asked of it."""

    name = "a fake"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.up = False

    def register(self) -> None:
        self.asked.append("register")

    def start(self) -> None:
        self.asked.append("start")
        self.up = True

    def stop(self) -> None:
        self.asked.append("stop")
        self.up = False

    def unregister(self) -> None:
        self.asked.append("unregister")
        self.up = False

    def running(self) -> bool:
        return self.up

    def hint(self) -> str:
        return ""


class World:
    def __init__(self, root: Path) -> None:
        self.layout, self.supervisor, self.coordinator = Layout(root), FakeSupervisor(), FakeCoordinator()
        self.lines: list[str] = []
        self.worker = Worker(self.layout, self.supervisor, self.coordinator.market(), self.lines.append)

    def version(self, name: str) -> str:
        (self.layout.versions / name / "bin").mkdir(parents=True)
        return name

    def install(self, version: str, code: str = "CODE") -> None:
        self.worker.install(version, code, TOLD, listed_s=0.0)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(installing, "_LOOK_S", 0.0)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    root = tmp_path / "qubix-worker"
    root.mkdir()
    return World(root)


def test_an_installed_worker_says_its_fingerprint_and_is_listed(world: World) -> None:
    world.install(world.version("1"))
    assert world.layout.version == "1"
    assert world.supervisor.asked == ["register", "start"]
    assert read_settings(world.layout) == TOLD | {"QUBIX_DATA_DIR": str(world.layout.data)}
    assert (world.layout.settings.stat().st_mode & 0o777, world.layout.key.stat().st_mode & 0o777) == (0o600, 0o600)
    told = "\n".join(world.lines)
    assert "Fingerprint of this machine" in told
    assert "Listed: RTX." in told
    assert "CODE" not in told
    kept = [path.read_bytes() for path in world.layout.root.rglob("*") if path.is_file()]
    assert not any(b"CODE" in data for data in kept), "it serves once, and lies nowhere"


def test_a_second_time_changes_nothing_and_needs_no_code(world: World) -> None:
    world.install(world.version("1"))
    key = world.layout.key.read_bytes()
    world.coordinator.paired, world.coordinator.state = True, PairingState.EXPIRED
    world.install("1")
    assert world.layout.key.read_bytes() == key
    assert sum(isinstance(said, Pair) for said in world.coordinator.said) == 1


def test_a_persons_own_settings_stay(world: World) -> None:
    world.install(world.version("1"))
    with world.layout.settings.open("a") as file:
        file.write("QUBIX_NODE_RATE_QU_PER_H=90000\n")
    world.install("1")
    assert read_settings(world.layout)["QUBIX_NODE_RATE_QU_PER_H"] == "90000"
    with pytest.raises(ValueError, match="no setting"):
        write_settings(world.layout, {"QUBIX_X": "a\nQUBIX_Y=b"})


@pytest.mark.parametrize("state", [PairingState.REFUSED, PairingState.EXPIRED])
def test_an_old_code_is_told_before_anything_runs(world: World, state: PairingState) -> None:
    world.coordinator.state = state
    with pytest.raises(Trouble) as found:
        world.install(world.version("1"))
    assert state.value in found.value.text()
    assert found.value.remedy
    assert world.supervisor.asked == []
    assert world.layout.version == ""


def test_what_is_never_listed_ends_and_what_was_before_runs_on(world: World) -> None:
    world.install(world.version("1"))
    world.coordinator.devices = ()
    world.layout.log.write_text("a line of its log\n")
    with pytest.raises(Trouble, match="Listing") as found:
        world.install(world.version("2"))
    assert "a line of its log" in found.value.text()
    assert world.layout.version == "1"
    assert world.supervisor.asked[-1] == "start"
    fresh = World(world.layout.root.parent / "fresh")
    fresh.layout.root.mkdir()
    fresh.coordinator.devices = ()
    with pytest.raises(Trouble, match="Listing"):
        fresh.install(fresh.version("1"))
    assert fresh.supervisor.asked[-1] == "unregister"


def test_another_coordinator_is_told_nothing(world: World) -> None:
    world.coordinator.key = SigningKey(b"x" * 32)
    with pytest.raises(Trouble, match="Coordinator") as found:
        world.install(world.version("1"))
    assert "Somebody may stand between" in found.value.text()
    assert world.coordinator.said == []


def test_older_versions_go_once_the_new_one_is_listed(world: World) -> None:
    world.install(world.version("1"))
    world.install(world.version("2"))
    assert [path.name for path in world.layout.versions.iterdir()] == ["2"]


@pytest.mark.parametrize(("balance_qu", "away", "kept"), [(0, False, False), (5, False, True), (0, True, True)])
def test_uninstalling_leaves_nothing_but_a_key_that_still_opens_something(
    world: World, balance_qu: int, away: bool, kept: bool
) -> None:
    world.install(world.version("1"))
    key = world.layout.key.read_bytes()
    world.coordinator.balance_qu, world.coordinator.away = balance_qu, away
    world.worker.uninstall()
    assert not world.layout.root.exists()
    assert world.supervisor.asked[-1] == "unregister"
    left = list((world.layout.root.parent / "home").iterdir())
    assert [path.read_bytes() for path in left] == ([key] if kept else [])
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in left)


def test_its_status_is_told_in_lines_and_as_json(world: World) -> None:
    world.install(world.version("1"))
    world.lines.clear()
    assert world.worker.status()
    assert [line.split()[0] for line in world.lines] == ["version", "service", "fingerprint", "account", "device"]
    world.lines.clear()
    world.coordinator.paired, world.coordinator.balance_qu, world.supervisor.up = True, 7, False
    assert not world.worker.status(as_json=True), "it does not run"
    told = json.loads("".join(world.lines))
    assert told["devices"] == [msgspec.to_builtins(DEVICE)]
    del told["devices"]
    assert told == {
        "version": "1",
        "service": "a fake",
        "running": False,
        "fingerprint": fingerprint(world.worker.key().public),
        "paired": True,
        "own_balance_qu": 7,
    }


def test_the_current_version_changes_in_one_step(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for name in ("1", "2"):
        (layout.versions / name).mkdir(parents=True)
        switch(layout, name)
        assert layout.version == name
        assert layout.current.resolve() == layout.versions / name


# What starts it -------------------------------------------------------------------------------------------------------


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    tools, log = tmp_path / "tools", tmp_path / "calls"
    tools.mkdir()
    log.touch()
    for name in ("systemctl", "launchctl"):
        tool = tools / name
        tool.write_text(f'#!/bin/sh\necho "{name} $*" >> {shlex.quote(str(log))}\n')
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return lambda: log.read_text().splitlines()


def test_systemd_starts_it_at_login_and_forgets_it_again(tmp_path: Path, calls: Callable[[], list[str]]) -> None:
    layout = Layout(tmp_path / 'a "root" 100%')
    found = chosen(layout, {"HOME": str(tmp_path)})
    assert isinstance(found, SystemdUser)
    assert found.unit == tmp_path / ".config/systemd/user/qubix-worker.service"
    found.register()
    text = found.unit.read_text()
    assert 'ExecStart="' in text
    assert '\\"root\\" 100%%' in text
    assert "Restart=always" in text
    assert "WantedBy=default.target" in text
    found.start()
    assert found.running()
    assert "enable-linger" in found.hint()
    found.unregister()
    assert not found.unit.exists()
    assert [call.removeprefix("systemctl --user ") for call in calls()] == [
        "show-environment",
        "daemon-reload",
        "enable qubix-worker.service",
        "restart qubix-worker.service",
        "is-active --quiet qubix-worker.service",
        "disable --now qubix-worker.service",
        "daemon-reload",
    ]


def test_launchd_starts_it_at_login_and_forgets_it_again(
    tmp_path: Path, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    layout = Layout(tmp_path / "a & root")
    found = chosen(layout, {"HOME": str(tmp_path)})
    assert isinstance(found, Launchd)
    found.register()
    said = plistlib.loads(found.agent.read_bytes())
    assert said["ProgramArguments"] == [str(layout.command), "run"]
    assert said["RunAtLoad"] is said["KeepAlive"] is True
    found.start()
    assert found.running()
    found.unregister()
    assert not found.agent.exists()
    assert f"launchctl bootstrap gui/{os.getuid()} {found.agent}" in calls()


def test_without_both_a_process_of_its_own_is_started_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    layout = Layout(tmp_path / "root")
    layout.command.parent.mkdir(parents=True)
    layout.command.write_text(f"#!/bin/sh\nexec /bin/sleep 600 # {layout.root}\n")
    layout.command.chmod(0o700)
    found = chosen(layout, {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
    assert isinstance(found, Plain)
    layout.command.write_text(f"#!/bin/sh\nwhile :; do /bin/sleep 0.1; done # {layout.root}\n")
    found.register()
    assert f'Exec="{layout.command}" start' in found.entry.read_text()
    assert not found.running()
    found.start()
    try:
        assert all(found.running() for _ in range(200)), "also while it becomes what it runs"
        assert chosen(layout, {"HOME": str(tmp_path)}).running()
    finally:
        found.unregister()
    assert not found.running()
    assert not found.entry.exists()
    layout.pid.write_text(f"{os.getpid()} 15\n")
    assert not found.running(), "another process has the number now"


def test_every_way_is_a_supervisor(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    ways: list[Supervisor] = [SystemdUser(layout, tmp_path), Launchd(layout, tmp_path), Plain(layout, tmp_path, {})]
    assert len({way.name for way in ways}) == 3


def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path / "none"), "status"]) == 1
    assert "Download its file from the page" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["dance"])
    assert ended.value.code == 2


def test_the_wrapper_stands_any_folder_name(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "it's a folder")
    layout.root.mkdir()
    write_command(layout)
    python = layout.root / "current" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    python.chmod(0o755)
    command = [str(layout.command), "status", "a b"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    assert said == ["-m", "qubix_node.service", "--root", str(layout.root), "status", "a b"]
