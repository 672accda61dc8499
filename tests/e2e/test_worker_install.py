# SPDX-License-Identifier: Apache-2.0
"""The Linux installer as a newcomer starts it: from one file to a listed node that earns, and back.

A real market, the real package index, a user without rights in an empty home, no compiler, no gmp.h, no GMP.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import qubix
from qubix_protocol.states import JobState
from tests.support import books
from tests.support.funds import fund_market
from tests.support.market import Market
from tests.support.newcomer import ROOT, Newcomer, downloaded

pytestmark = pytest.mark.slow
DEADLINE_S = 300.0


def until(what: Callable[[], Any], *, deadline_s: float = DEADLINE_S) -> Any:
    end = time.monotonic() + deadline_s
    while not (found := what()):
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.1)
    return found


def api(market: Market) -> httpx.Client:
    return httpx.Client(
        base_url=f"{market.url.rstrip('/')}/api/v1", headers={"Authorization": f"Bearer {market.token}"}
    )


def pairing(market: Market, pairing_id: str) -> dict[str, Any]:
    with api(market) as http:
        found: dict[str, Any] = http.get(f"/pairings/{pairing_id}").json()
        return found


def test_from_one_file_to_a_listed_node_that_earns_and_back_to_nothing(market: Market, folder: Path) -> None:
    with Newcomer.at(folder / "home") as person:
        _from_file_to_node_and_back(market, folder, person)


def _from_file_to_node_and_back(market: Market, folder: Path, person: Newcomer) -> None:
    file, pairing_id = downloaded(market, person.home)
    root = person.home / ROOT
    began = time.monotonic()
    try:
        done = person.run("sh", str(file))
        took_s = time.monotonic() - began
        assert done.returncode == 0, done.stdout + done.stderr + market.logs()
        print(f"installer to listed: {took_s:.1f} s\n{done.stdout}")
        seen = pairing(market, pairing_id)
        assert seen["state"] == "seen"
        assert seen["fingerprint"] in done.stdout
        assert [device["online"] for device in seen["devices"]] == [True]
        assert "Listed: " in done.stdout
        with api(market) as http:
            shown = {"fingerprint": seen["fingerprint"]}
            assert http.post(f"/pairings/{pairing_id}/confirm", json=shown).json()["state"] == "confirmed"
        _works(market)
        _again(person, file, root)
        _updates(market, person, root)
        (root / "data" / "node").stat()
    finally:
        gone = person.run("sh", str(file), "--uninstall")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert person.files() == [file.name]
    with qubix.Client(market.url, token=market.token, data_dir=folder / "client") as client:
        until(lambda: not client.offers())
    books.audit(market.env)


def _works(market: Market) -> None:
    """A checked job, paid to the person's account: the node is theirs."""
    with qubix.Client(market.url, token=market.token, data_dir=market.folder / "client") as client:
        fund_market(market, client, 1_000_000)
        before = client.account().balance_qu
        a = np.random.default_rng(1).standard_normal((300, 300), dtype=np.float32)
        job = client.submit("matmul", a=a, b=a, cap_qu=500)
        np.testing.assert_allclose(job.result(timeout_s=DEADLINE_S)["c"], a @ a, rtol=1e-3, atol=1e-3)
        view = job.refresh()
        assert view.state is JobState.SETTLED
        assert view.paid_qu >= 1
        assert client.account().balance_qu == before - view.fee_qu, "consumer and provider are one person here"


def _again(person: Newcomer, file: Path, root: Path) -> None:
    """Started twice, it is as started once: the same node, nothing doubled."""
    key = (root / "data/node.key").read_bytes()
    done = person.run("sh", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is installed already" in done.stdout
    assert (root / "data/node.key").read_bytes() == key
    assert len(list((root / "versions").iterdir())) == 1
    status = person.run("sh", str(file), "--status")
    assert status.returncode == 0, status.stdout + status.stderr
    assert "account      yours" in status.stdout


def _updates(market: Market, person: Newcomer, root: Path) -> None:
    """From a version that the coordinator does not give out any more."""
    (version,) = (root / "versions").iterdir()
    old = version.with_name("0.0.1+wold")
    done = person.run(
        "sh",
        "-c",
        f"cd '{root}' && cp -a '{version}' '{old}' && ln -sfn versions/{old.name} current && rm -rf '{version}'",
    )
    assert done.returncode == 0, done.stderr
    (root / "current").lstat()
    done = person.run(
        str(root / "versions" / old.name / "bin/python"), "-m", "qubix_node.service", "--root", str(root), "update"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Updated to {version.name}" in done.stdout
    assert [path.name for path in (root / "versions").iterdir()] == [version.name]
    status = person.run(str(root / "bin/qubix-worker"), "status")
    assert status.returncode == 0, status.stdout + status.stderr


def test_what_fails_says_why_and_leaves_nothing(market: Market, folder: Path) -> None:
    person = Newcomer.at(folder / "home")
    file, pairing_id = downloaded(market, person.home)
    with api(market) as http:
        http.delete(f"/pairings/{pairing_id}")
    done = person.run("sh", str(file))
    assert done.returncode == 1, done.stdout
    assert "FAIL  Coordinator: this code is refused" in done.stderr
    assert "do:    Make a new code" in done.stderr
    assert "Nothing was left behind." in done.stderr
    assert person.files() == [file.name]


def test_a_node_that_is_started_with_a_code_says_its_fingerprint_and_hears_of_its_confirmation(market: Market) -> None:
    with api(market) as http:
        made = http.post("/pairings", json={"name": "by hand"}).json()
    code, pairing_id = made["code"], made["pairing"]["pairing_id"]
    node = market.start_node("node", "tests.support.quick_node", QUBIX_PAIRING_CODE=code)
    seen = until(lambda: (found := pairing(market, pairing_id))["state"] == "seen" and found)
    assert seen["peer_id"] == node.info["peer_id"]
    until(lambda: f"state=seen fingerprint={seen['fingerprint']}" in node.tail())
    with api(market) as http:
        shown = {"fingerprint": seen["fingerprint"]}
        assert http.post(f"/pairings/{pairing_id}/confirm", json=shown).json()["state"] == "confirmed"
    until(lambda: "state=confirmed" in node.tail())
    assert code not in node.log.read_text()
    assert node.running
