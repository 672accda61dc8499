# SPDX-License-Identifier: Apache-2.0
"""Somebody else's machine, as far as it can be had here: a user without rights, an empty home, and no compiler.

Compilers, gmp.h and the system's own GMP are hidden, so that nothing can be built and nothing borrowed.
"""

import base64
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
import psutil

from tests.support.market import Market

UID: Final = 65534
_PATH: Final = "/usr/bin:/bin"
ROOT: Final = ".local/share/qubix-worker"
_COMPILERS: Final = (
    "cc",
    "c89",
    "c99",
    "gcc",
    "g++",
    "clang",
    "cpp",
    "x86_64-linux-gnu-gcc",
    "x86_64-linux-gnu-gcc-12",
)
_GMP: Final = ("/usr/include", "/usr/lib")
_GONE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Newcomer:
    """`with Newcomer.at(home) as person:` leaves no process of theirs behind, however it ends."""

    home: Path
    """Anybody may pass through the folders above it."""
    env: dict[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, home: Path, **env: str) -> "Newcomer":
        home.mkdir()
        if os.getuid() == 0:
            os.chown(home, UID, UID)
        # How this machine reaches its package index is the machine's, not the user's.
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_") and name != "PIP_CACHE_DIR"}
        certificates = {
            name: os.environ[name] for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") if name in os.environ
        }
        return cls(home, {"HOME": str(home), "PATH": _PATH, "LANG": "C.UTF-8", **pip, **certificates, **env})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends whatever was started in this home, installers and workers alike. Once more until nothing is left: what
        is being started meanwhile is found, too."""
        end = time.monotonic() + _GONE_S
        while left := list(self._processes()):
            assert time.monotonic() < end, f"these do not end: {left}"
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=1)

    def _processes(self) -> Iterator[psutil.Process]:
        """By the home in their environment, which nobody else has."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("HOME") == str(self.home) and process.status() != psutil.STATUS_ZOMBIE:
                    yield process

    def until_said(self, word: str, *command: str) -> float:
        """Runs it to its end; the seconds until it began a line with this word. Raises RuntimeError when it fails."""
        began, took_s, said = time.monotonic(), None, []
        with subprocess.Popen(
            [*self._as_user(), *command],
            env=self.env,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as running:
            assert running.stdout is not None
            for line in running.stdout:
                said.append(line)
                if took_s is None and line.startswith(word):
                    took_s = time.monotonic() - began
        if running.returncode or took_s is None:
            raise RuntimeError("".join(said))
        return took_s

    def run(self, *command: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._as_user(), *command],
            env=self.env,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def _as_user(self) -> Sequence[str]:
        become = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"] if os.getuid() == 0 else []
        return [*become, "bwrap", "--dev-bind", "/", "/", *_hidden(), "--"]

    def files(self) -> list[str]:
        """Everything that is in the home, but for what pip keeps for the next time."""
        found = (path.relative_to(self.home) for path in sorted(self.home.rglob("*")) if not path.is_dir())
        return [path.as_posix() for path in found if not path.as_posix().startswith(".cache/")]


def _hidden() -> list[str]:
    compilers = [path for folder in _PATH.split(":") for name in _COMPILERS if (path := Path(folder) / name).exists()]
    gmp = [
        path
        for folder in _GMP
        for pattern in ("gmp.h", "libgmp.so*", "libgmp.a")
        for path in Path(folder).rglob(pattern)
    ]
    real = sorted({str(path.resolve()) for path in (*compilers, *gmp)})
    return [word for path in real for word in ("--ro-bind", "/dev/null", path)]


def downloaded(market: Market, home: Path) -> tuple[Path, str]:
    """The Linux installer as the page gives it to the developer's account, and the id of its pairing."""
    answer = httpx.post(
        f"{market.url.rstrip('/')}/api/v1/worker/installer",
        json={"system": "linux"},
        headers={"Authorization": f"Bearer {market.token}"},
        timeout=60,
    )
    assert answer.status_code == 201, answer.text
    view = answer.json()
    file = home / str(view["name"])
    file.write_bytes(base64.b64decode(view["content_base64"]))
    file.chmod(0o644)
    return file, str(view["pairing"]["pairing_id"])
