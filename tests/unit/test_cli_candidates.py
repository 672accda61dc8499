# SPDX-License-Identifier: Apache-2.0
"""Who could run it, for how much and how long: shown before anything is paid."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from qubix.cli import main
from qubix_protocol.api import CandidateView, EstimateBody, EstimateView, MisfitView, ObstacleView
from qubix_protocol.arrays import ArrayMeta
from tests.support.fake_api import TOKEN, FakeApi

A = np.arange(12, dtype=np.float32).reshape(4, 3)
B = np.arange(6, dtype=np.float32).reshape(3, 2)
CARD: Final = CandidateView(
    listing_id="7d444840-9dc0-11d1-b245-5ffdce74fad2",
    provider="12D3KooWCard",
    model="A card",
    backend="cuda",
    rate_qu_per_h=3_600_000,
    run_ms=1_000,
    cost_low_qu=900,
    cost_qu=1_000,
    cost_high_qu=1_250,
    run_low_ms=900,
    run_high_ms=1_100,
    time_low_ms=1_500,
    time_ms=1_800,
    time_high_ms=2_100,
    country="DE",
    affordable=False,
)
WHY: Final = "has too little memory"
MISFIT: Final = MisfitView(
    listing_id=CARD.listing_id, provider="12D3KooWSmall", model="small", rate_qu_per_h=1, obstacle="memory", why=WHY
)
FOUND: Final = EstimateView(
    candidates=(CARD,),
    flops=1e9,
    units=4,
    output={"c": ArrayMeta("float32", (4, 2))},
    check_flops=3e6,
    fee_bps=250,
    fitting=1,
    misfits=(MISFIT,),
    obstacles=(ObstacleView(obstacle="memory", why=WHY, offers=2),),
    balance_qu=1_000,
    cap_least_qu=1_250,
)
NOBODY: Final = msgspec.structs.replace(FOUND, candidates=(), fitting=0)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as found:
        found.estimate = FOUND
        yield found


def environment(api: FakeApi, tmp_path: Path) -> dict[str, str]:
    return {
        "QUBIX_COORDINATOR_URL": api.url,
        "QUBIX_TOKEN": TOKEN,
        "QUBIX_DATA_DIR": str(tmp_path / "data"),
        "QUBIX_TRIES_MAX": "2",
    }


def words(tmp_path: Path, *more: str) -> list[str]:
    np.save(tmp_path / "a.npy", A)
    np.save(tmp_path / "b.npy", B)
    return ["job", "submit", "matmul", "-i", f"a={tmp_path / 'a.npy'}", "-i", f"b={tmp_path / 'b.npy'}", *more]


def run(api: FakeApi, tmp_path: Path, *more: str) -> Result:
    return CliRunner().invoke(main, words(tmp_path, *more), env=environment(api, tmp_path))


def submitted(api: FakeApi) -> int:
    return len(api.orders)


def test_a_dry_run_shows_who_fits_and_why_others_do_not_and_sends_nothing(api: FakeApi, tmp_path: Path) -> None:
    found = run(api, tmp_path, "--dry-run", "--where", "gpu_ram>=8 price<500", "--rate-max", "400", "--cap", "2000")
    assert found.exit_code == 0, found.output
    for told in ("A card (cuda)", "1,000", "1,250 !", "1.80 s", "1.5 to 2.1 s", "DE", "no record", "at once", WHY):
        assert told in found.output, told
    assert "2 offers" in found.output
    assert "above your balance of 1,000 QU" in found.output
    assert "the market's 2.5 %, which pays the check" in found.output
    assert (api.uploads, api.orders) == ({}, [])
    (seen,) = api.calls("POST", "/jobs/estimate")
    body = msgspec.json.decode(seen.body, type=EstimateBody)
    assert (body.where, body.rate_qu_per_h_max, body.cap_qu) == ("gpu_ram>=8 price<500", 400, 2_000)


def test_a_dry_run_needs_no_cap_and_gives_json(api: FakeApi, tmp_path: Path) -> None:
    found = run(api, tmp_path, "--dry-run", "--json")
    assert json.loads(found.output)["candidates"][0]["cost_high_qu"] == 1_250
    assert run(api, tmp_path, "--dry-run", "--rental", CARD.listing_id).exit_code == 2


def test_nobody_fits_is_said_with_what_would_help(api: FakeApi, tmp_path: Path) -> None:
    api.estimate = NOBODY
    found = run(api, tmp_path, "--dry-run", "--cap", "1")
    assert found.exit_code == 1
    assert "Nobody fits now." in found.output
    assert "1,250 QU is the least" in found.output


def test_a_script_is_not_asked(api: FakeApi, tmp_path: Path) -> None:
    assert run(api, tmp_path, "--cap", "100").exit_code == 0
    assert api.calls("POST", "/jobs/estimate") == []
    assert submitted(api) == 1


@pytest.mark.parametrize(
    ("more", "answer", "jobs", "asks"), [((), b"n\n", 0, True), ((), b"y\n", 1, True), (("--yes",), b"", 1, False)]
)
def test_a_person_sees_the_candidates_and_decides(
    api: FakeApi, tmp_path: Path, more: tuple[str, ...], answer: bytes, jobs: int, asks: bool
) -> None:
    """In a real terminal."""
    ours, theirs = pty.openpty()
    env = {**os.environ, **environment(api, tmp_path), "COLUMNS": "160"}
    command = [sys.executable, "-m", "qubix", *words(tmp_path, "--cap", "900", *more)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        if answer:
            os.write(ours, answer)
        said = _all_of(ours)
        assert process.wait(60) == (0 if jobs else 1), said
    assert ("Submit it for at most 900 QU?" in said) == asks
    assert ("A card" in said) == asks
    assert submitted(api) == jobs


def _all_of(terminal: int) -> str:
    found = b""
    try:
        while piece := os.read(terminal, 65_536):
            found += piece
    except OSError:
        pass  # the other side was closed
    finally:
        os.close(terminal)
    return found.decode()
