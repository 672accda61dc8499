# SPDX-License-Identifier: Apache-2.0
"""Every amount that the API takes is a whole number within bounds: found by the API's own description, so that a new
route is held to it too."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.app import Coordinator
from qubix_coordinator.db.database import Database
from qubix_protocol.units import QU_MAX
from tests.db.support_http import assembled, make_person

pytestmark = pytest.mark.asyncio
NOBODY = "00000000-0000-4000-8000-000000000001"
# As they stand in JSON: the numbers must not pass through Python's own.
NEVER = ["1.5", "1e400", "-1.0", '"5"', '"0x10"', "true", "[]", "{}", "9" * 40, "NaN", "Infinity"]
Json = dict[str, Any]


@pytest_asyncio.fixture
async def coordinator(db: Database, tmp_path: Path) -> Coordinator:
    return await assembled(db, tmp_path)


def resolved(document: Json, schema: Json) -> Json:
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def is_money(name: str) -> bool:
    return name.endswith("_qu") or "_qu_" in name


def amounts(document: Json) -> dict[tuple[str, str, str], Json]:
    """Method, path and field of each amount in a body, with its schema: an integer, or one that may be left out."""
    found = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is None:
                continue
            body = resolved(document, content["schema"])
            for name, schema in body["properties"].items():
                if is_money(name):
                    kinds = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
                    assert len(kinds) == 1, (path, name)
                    found[(method.upper(), path, name)] = kinds[0]
    return found


async def described(coordinator: Coordinator) -> Json:
    answer = await coordinator.app.test_client().get("/openapi.json")
    document: Json = await answer.get_json()
    return document


async def test_every_amount_is_a_bounded_whole_number(coordinator: Coordinator) -> None:
    found = amounts(await described(coordinator))
    assert {
        ("POST", "/api/v1/jobs", "cap_qu"),
        ("POST", "/api/v1/withdrawals", "amount_qu"),
        ("POST", "/api/v1/rentals", "cap_qu"),
        ("POST", "/api/v1/account/payout", "keep_qu"),
    } <= set(found)
    for where, schema in found.items():
        assert schema["type"] == "integer", where
        assert 0 <= schema["minimum"] <= 1, where
        assert schema["maximum"] <= QU_MAX, where


async def test_what_is_no_amount_is_refused_with_field_and_remedy(coordinator: Coordinator, db: Database) -> None:
    person = await make_person(db, *Scope)
    client = coordinator.app.test_client()
    for (method, path, field), schema in amounts(await described(coordinator)).items():
        beyond = [
            str(schema["minimum"] - 1),
            str(schema["maximum"] + 1),
            str(2**63),
            str(-(2**63) - 1),
            str(QU_MAX + 1),
        ]
        for wrong in [*beyond, *NEVER]:
            # Alone in its body: what is wrong is told before what is missing.
            answer = await client.open(
                re.sub(r"{\w+}", NOBODY, path),
                method=method,
                data=f'{{"{field}": {wrong}}}',
                headers={"Content-Type": "application/json", "Idempotency-Key": "k", **person.headers},
            )
            told = json.loads(await answer.get_data())
            assert answer.status_code in (400, 422), (path, field, wrong, told)
            assert told["code"] in ("invalid_input", "malformed_body"), (path, field, wrong, told)
            assert told["remedy"], (path, field, wrong)
            if told["code"] == "invalid_input":
                assert told["field"] == field, (path, field, wrong, told)
    assert await db.fetch_value("SELECT count(*) FROM transfer") == 0
