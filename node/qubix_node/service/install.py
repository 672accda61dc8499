# SPDX-License-Identifier: Apache-2.0
"""From a made environment to a listed node; and back, leaving nothing."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from qubix_node.errors import Fatal
from qubix_node.identity import load_or_create_key
from qubix_node.service.layout import Layout, read_settings, switch, write_command, write_settings
from qubix_node.service.market import Market
from qubix_node.service.supervisors import Supervisor
from qubix_node.service.trouble import Trouble
from qubix_protocol.keys import SigningKey
from qubix_protocol.pairing import PairingState, fingerprint, listed

LISTED_S: Final = 600.0
_LOOK_S: Final = 1.0
_PIP_S: Final = 1800
_LOG_LINES: Final = 15
LINKS: Final = "links.html"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Worker:
    layout: Layout
    supervisor: Supervisor
    market: Market
    say: Say

    def key(self) -> SigningKey:
        try:
            return load_or_create_key(self.layout.key)
        except (Fatal, OSError) as problem:
            raise Trouble(
                "Key of this node", str(problem), "a file that only you can read", "Mend it, then run again"
            ) from None

    # Install ----------------------------------------------------------------------------------------------------------

    def install(self, version: str, code: str, settings: Mapping[str, str], *, listed_s: float = LISTED_S) -> None:
        """The environment of `version` is there. Raises Trouble; what was here before then runs on."""
        before = self.layout.version
        write_settings(self.layout, {**settings, "QUBIX_DATA_DIR": str(self.layout.data)})
        key = self.key()
        if code:
            self._bring(key, code)
        switch(self.layout, version)
        write_command(self.layout)
        try:
            self.supervisor.register()
            self.supervisor.start()
            self.say(f"Service: {self.supervisor.name}.")
            self._until_listed(key, listed_s)
        except BaseException:
            self._back_to(before)
            raise
        self._forget_others(version)
        if self.supervisor.hint():
            self.say(self.supervisor.hint())
        self.say(f"Everything else: {self.layout.command} status | stop | start | update | uninstall")

    def _bring(self, key: SigningKey, code: str) -> None:
        if self.market.node(key).paired:
            return
        view = self.market.pair(key, code)
        if view.state is not PairingState.SEEN:
            raise Trouble(
                "Pairing code",
                f"it is {view.state}",
                "a code that is not used or old",
                "Download the file again, and start it",
            )
        self.say(f"\n    Fingerprint of this machine:  {fingerprint(key.public)}\n")
        self.say("Compare it with the page, and confirm it there: then what this machine earns is yours.")

    def _back_to(self, version: str) -> None:
        """What ran before, or nothing."""
        if version:
            switch(self.layout, version)
            self.supervisor.start()
        else:
            self.supervisor.unregister()

    def _until_listed(self, key: SigningKey, listed_s: float) -> None:
        self.say("Measuring this machine; it is listed as soon as enough is known ...")
        end = time.monotonic() + listed_s
        while True:
            try:
                view = self.market.node(key)
            except Trouble as problem:
                if time.monotonic() >= end:
                    raise problem from None
            else:
                if listed(view.devices):
                    names = ", ".join(one.model for one in view.devices if one.online)
                    told = (
                        "" if view.paired else " Not confirmed yet: until you do, it works under an account of its own."
                    )
                    self.say(f"Listed: {names}.{told}")
                    return
            if time.monotonic() >= end or not self.supervisor.running():
                raise Trouble(
                    "Listing",
                    f"the worker has ended or was not listed within {listed_s:.0f} s:\n{self.log_tail()}",
                    "a worker that runs and is seen by the market",
                    f"Look at {self.layout.log}, mend what it says, and start the file again",
                )
            time.sleep(_LOOK_S)

    def log_tail(self) -> str:
        if not self.layout.log.is_file():
            return "      (its lines are in the system's journal: journalctl --user -u qubix-worker)"
        lines = self.layout.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return "\n".join(f"      | {line}" for line in lines)

    def _forget_others(self, version: str) -> None:
        for folder in self.layout.versions.iterdir():
            if folder.name != version:
                shutil.rmtree(folder, ignore_errors=True)

    # Update -----------------------------------------------------------------------------------------------------------

    def update(self, *, listed_s: float = LISTED_S) -> None:
        """To what the coordinator runs now. Raises Trouble; the version before then runs on."""
        manifest = self.market.manifest()
        if manifest.version == self.layout.version:
            self.say(f"This is the newest version: {manifest.version}.")
            return
        lock = read_settings(self.layout).get("QUBIX_WORKER_LOCK", "")
        wanted = manifest.requirements.get(lock)
        if wanted is None:
            raise Trouble(
                "Update",
                f"there are no files for {lock!r}",
                "one of " + ", ".join(manifest.requirements),
                "Ask the operator",
            )
        folder = self.layout.versions / manifest.version
        shutil.rmtree(folder, ignore_errors=True)
        try:
            self._environment(folder, [wanted, *manifest.wheels], wanted.name)
            self.install(manifest.version, "", {}, listed_s=listed_s)
        except Trouble:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.say(f"Updated to {manifest.version}.")
        self._compile(folder)

    def _compile(self, folder: Path) -> None:
        """What the node has not imported yet: pip leaves it out, so that a listing does not wait for it. Behind
        whatever the machine has to do; a file that is no Python of this version stays as it is."""
        words = [str(folder / "bin" / "python"), "-m", "compileall", "-q", str(folder / "lib")]
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(["nice", "-n", "19", *words], capture_output=True, timeout=_PIP_S, check=False)  # noqa: S607

    def _environment(self, folder: Path, files: list[Any], requirements: str) -> None:
        stage = folder / "files"
        self._pip("-m", "venv", str(folder), python=Path(getattr(sys, "_base_executable", sys.executable)))
        stage.mkdir()
        for one in files:
            data = self.market.file(one.sha256, one.name)
            if hashlib.sha256(data).hexdigest() != one.sha256:
                raise Trouble("Download", f"{one.name} has other content", f"SHA-256 {one.sha256}", "Run it again")
            (stage / one.name).write_bytes(data)
        # pip prefers what it knows the hash of beforehand.
        links = (f'<a href="{one.name}#sha256={one.sha256}">{one.name}</a>' for one in files)
        (stage / LINKS).write_text("\n".join(links))
        self._pip(*pip_words(stage, requirements), python=folder / "bin" / "python")
        shutil.rmtree(stage)

    def _pip(self, *words: str, python: Path) -> None:
        done = subprocess.run([str(python), *words], capture_output=True, text=True, timeout=_PIP_S, check=False)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()[-1500:]
            raise Trouble(
                "Packages",
                said,
                "packages that can be installed",
                "Look at the network and pip's index, then run again",
            )

    # Uninstall --------------------------------------------------------------------------------------------------------

    def uninstall(self) -> None:
        """Everything goes. A key that alone opens QU, or of which nobody can tell, is laid into the home folder."""
        kept = self._key_to_keep()
        self.supervisor.unregister()
        if kept:
            place = Path.home() / f"qubix-node-{fingerprint(self.key().public)[:4]}.key"
            shutil.copyfile(self.layout.key, place, follow_symlinks=False)
            place.chmod(0o600)
            self.say(f"{kept} Its key is kept: {place} (qubix provider login --key-file opens the account).")
        shutil.rmtree(self.layout.root)
        self.say("The worker is gone from this machine.")

    def _key_to_keep(self) -> str:
        if not self.layout.key.is_file():
            return ""
        try:
            view = self.market.node(self.key())
        except Trouble as problem:
            return f"Nobody could tell whether this node's own account holds QU ({problem})."
        return f"This node's own account holds {view.own_balance_qu} QU." if view.own_balance_qu else ""

    # What runs --------------------------------------------------------------------------------------------------------

    def status(self, *, as_json: bool = False) -> bool:
        """Whether it runs and is listed. For people, what is known here is said before the market is asked."""
        running, key = self.supervisor.running(), self.key()
        if as_json:
            return self._status_json(running, key)
        self.say(f"version      {self.layout.version}")
        self.say(f"service      {self.supervisor.name}: {'runs' if running else 'does not run'}")
        self.say(f"fingerprint  {fingerprint(key.public)}")
        view = self.market.node(key)
        self.say(f"account      {'yours' if view.paired else 'of its own: not confirmed on the page'}")
        for one in view.devices:
            state = "listed" if one.online else "not in the market"
            self.say(f"device       {one.model}: {state}{f', self-test {one.selftest}' if one.selftest else ''}")
        return running and listed(view.devices)

    def _status_json(self, running: bool, key: SigningKey) -> bool:
        view = self.market.node(key)
        told = {
            "version": self.layout.version,
            "service": self.supervisor.name,
            "running": running,
            "fingerprint": fingerprint(key.public),
            "paired": view.paired,
            "own_balance_qu": view.own_balance_qu,
            "devices": view.devices,
        }
        self.say(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
        return running and listed(view.devices)


def pip_words(stage: Path, requirements: str) -> list[str]:
    """Everything by its hash, our own wheels from `stage`, the rest from the index that pip is set to."""
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--no-compile", "--require-hashes"]
    return ["-m", "pip", "install", *quiet, "--find-links", str(stage / LINKS), "-r", str(stage / requirements)]


def become_node(layout: Layout, env: Mapping[str, str]) -> None:
    """This process becomes the node. Does not come back."""
    env = {name: value for name, value in env.items() if not name.startswith("QUBIX_")} | read_settings(layout)
    python = str(layout.python())
    os.execve(python, [python, "-m", "qubix_node"], env)  # noqa: S606 - no shell is wanted
