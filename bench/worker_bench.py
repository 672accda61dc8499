# SPDX-License-Identifier: Apache-2.0
"""From starting the Linux installer to a listed node, with warm downloads, beside pip alone on the same packages.

A newcomer's user, home and machine as the tests have them. The first installation fills pip's cache, the next ones
count, for as long as there is time. However it ends, the worker ends with it.
"""

import re
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from bench.figures import Figure
from qubix_coordinator.workers.shelf import locks
from qubix_coordinator.workers.wheels import COMPILED
from tests.support.market import Market
from tests.support.newcomer import Newcomer, downloaded

_ROUNDS = 3
_ROUNDS_S = 100.0
"""No further round is begun after so long, so that a run fits into three minutes."""
_AIM_S = 60.0


def run() -> list[Figure]:
    folder = Path(tempfile.mkdtemp(prefix="qx-"))
    folder.chmod(0o755)
    try:
        with Market(folder) as market, Newcomer.at(folder / "home") as person:
            return _figures(market, person)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _figures(market: Market, person: Newcomer) -> list[Figure]:
    began = time.monotonic()
    _listed_s(market, person)
    took = [_listed_s(market, person)]
    while len(took) < _ROUNDS and time.monotonic() < began + _ROUNDS_S - max(took):
        took.append(_listed_s(market, person))
    value_s = statistics.median(took)
    return [
        Figure(
            name="Linux installer, start to listed",
            value=value_s,
            unit="s",
            beside="venv and pip alone",
            limit=_pip_s(person),
            aim=f"≤ {_AIM_S:g} s",
            met=value_s <= _AIM_S,
            note=f"warm downloads; with measuring the machine's kernels; the median of {len(took)}",
        )
    ]


def _listed_s(market: Market, person: Newcomer) -> float:
    file, _ = downloaded(market, person.home)
    took_s = person.until_said("Listed: ", "sh", str(file))
    gone = person.run("sh", str(file), "--uninstall")
    if gone.returncode:
        raise RuntimeError(f"{gone.stdout}{gone.stderr}")
    return took_s


def _pip_s(person: Newcomer) -> float:
    """The same environment of the same packages, and nothing else."""
    names = re.findall(r"(?m)^([a-z0-9-]+==[^ ;]+)", locks()["py3.11"])
    wanted = " ".join(name for name in names if not name.startswith(f"{COMPILED}=="))
    bare = person.home / "bare"
    began = time.monotonic()
    done = person.run("sh", "-c", f"python3.11 -m venv '{bare}' && '{bare}/bin/pip' install -q --no-deps {wanted}")
    took_s = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(done.stderr)
    return took_s
