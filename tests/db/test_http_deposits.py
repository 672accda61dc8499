# SPDX-License-Identifier: Apache-2.0
"""Where to send QU, and what came in, as a person asks for it over HTTP."""

from pathlib import Path

import pytest

from qubix_chain import identity
from qubix_coordinator.db.database import Database
from tests.db.deposits_world import World
from tests.db.support_http import Person, make_person, served

pytestmark = pytest.mark.asyncio
CONNECTED = {"qubic_url": ("http://127.0.0.1:9",), "deposit_min_qu": 100}


async def test_each_account_has_one_deposit_identity_for_ever(db: Database, tmp_path: Path) -> None:
    world = await World.make(db)
    ann, bob = await make_person(db), await make_person(db, name="bob")
    async with served(db, tmp_path, **CONNECTED) as running:

        async def asked(person: Person) -> dict[str, object]:
            async with running.client(person) as http:
                answer = await http.post("/api/v1/account/deposit-identity", json={})
                assert answer.status_code == 200, answer.text
                found: dict[str, object] = answer.json()
                return found

        first, again, other = await asked(ann), await asked(ann), await asked(bob)
        assert first["identity"] == again["identity"] != other["identity"]
        assert (first["network"], first["amount_min_qu"]) == ("devnet", 100)
        signer = world.desk.signer
        mine = {identity.encode(signer.deposit_public_key(no)) for no in range(8)}
        assert {first["identity"], other["identity"]} <= mine


async def test_deposits_are_listed_newest_first_and_only_to_their_owner(db: Database, tmp_path: Path) -> None:
    world = await World.make(db)
    ann, bob = await make_person(db), await make_person(db, name="bob")
    async with served(db, tmp_path, **CONNECTED) as running, running.client(ann) as http:
        given = (await http.post("/api/v1/account/deposit-identity", json={})).json()["identity"]
        empty = (await http.get("/api/v1/account/deposits")).json()
        assert (empty["deposits"], empty["next"]) == ([], None)
        key = identity.decode(given)
        large = world.chain.pay(key, 5_000)
        world.chain.advance()
        small = world.chain.pay(key, 99)
        await world.settle(4)
        found = (await http.get("/api/v1/account/deposits")).json()["deposits"]
        assert [(one["tx_id"], one["amount_qu"], one["state"]) for one in found] == [
            (small, 99, "seen"),
            (large, 5_000, "credited"),
        ]
        assert "least deposit of 100 QU" in found[0]["text"]
        assert found[1]["source"] == identity.encode(world.chain.faucet)
        page = (await http.get("/api/v1/account/deposits", params={"limit": 1})).json()
        rest = (await http.get("/api/v1/account/deposits", params={"limit": 1, "after": page["next"]})).json()
        assert [one["tx_id"] for one in page["deposits"] + rest["deposits"]] == [small, large]
        async with running.client(bob) as other:
            assert (await other.get("/api/v1/account/deposits")).json()["deposits"] == []


async def test_what_cannot_be_answered_says_why(db: Database, tmp_path: Path) -> None:
    ann = await make_person(db)
    async with served(db, tmp_path / "a") as unconnected, unconnected.client(ann) as http:
        refused = await http.post("/api/v1/account/deposit-identity", json={})
        assert refused.status_code == 503
        assert "QUBIX_QUBIC_URL" in refused.json()["remedy"]
    async with served(db, tmp_path / "b", **CONNECTED) as running, running.client(ann) as http:
        empty_pool = await http.post("/api/v1/account/deposit-identity", json={})
        assert empty_pool.status_code == 503
        assert "qubix chain" in empty_pool.json()["remedy"]
        nobody_watches = (await http.get("/api/v1/account/deposits")).json()["chain"]
        assert nobody_watches["state"] == "silent"
        assert "qubix chain" in nobody_watches["text"]
        bad = await http.get("/api/v1/account/deposits", params={"after": "x"})
        assert (bad.status_code, bad.json()["field"]) == (422, "after")
    async with served(db, tmp_path / "c", **CONNECTED) as running, running.client() as stranger:
        assert (await stranger.get("/api/v1/account/deposits")).status_code == 401
