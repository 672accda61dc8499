# SPDX-License-Identifier: Apache-2.0
"""Every probe again as a user without any privilege, as providers should run a node.

Whoever runs the tests as such a user has seen that already. As root the probes run once more as nobody, in a mount
namespace where the interpreter can be reached even if it lies under a home that only root may enter.
"""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from qubix_kernels.box import machine, rules

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
LIMIT_S = 600


def closed_to_others(paths: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(path, the outermost folder above it that others may not enter)"""
    for path in paths:
        for above in reversed(Path(path).parents):
            if not above.stat().st_mode & stat.S_IXOTH:
                yield path, str(above)
                break


def opened(paths: tuple[str, ...], hold: Path) -> list[str]:
    """Shell lines that make the paths reachable, in this mount namespace alone."""
    found = list(closed_to_others(paths))
    lines = []
    for number, (path, _) in enumerate(found):
        (hold / str(number)).mkdir(parents=True)
        lines.append(f"mount --bind '{path}' '{hold}/{number}'")
    lines += [f"mount -t tmpfs -o mode=755 none '{above}'" for above in dict.fromkeys(above for _, above in found)]
    for number, (path, _) in enumerate(found):
        lines += [f"mkdir -p '{path}'", f"mount --bind '{hold}/{number}' '{path}'"]
    return lines


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not one of pytest's, which only its own user may enter."""
    with tempfile.TemporaryDirectory(prefix="qubix-nobody-") as name:
        yield Path(name)


def test_every_probe_fails_for_a_user_without_privileges(folder: Path) -> None:
    if os.geteuid() != 0:
        assert machine.found_here().kind == "box", machine.found_here().reason
        return
    os.chown(folder, NOBODY, NOBODY)
    readable = rules.without_nested([*machine.readable(), str(ROOT)])
    probes = Path(__file__).with_name("test_box_probes.py")
    card = Path(__file__).with_name("test_box_cards.py")
    also = "test_only_on_a_card_a_worker_names_its_threads_and_writes_nothing_else_of_proc"
    run = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=-all '{sys.executable}' -m pytest -q"
    lines = ["set -e", *opened(readable, folder / "hold"), f"cd '{ROOT}'"]
    lines.append(f"exec {run} -p no:cacheprovider -p no:xdist --basetemp='{folder}/t' '{probes}' '{card}::{also}'")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", "\n".join(lines)],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
