# SPDX-License-Identifier: Apache-2.0
"""The API's description validates, and no route is missing from it."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from openapi_spec_validator import validate

import qubix_protocol
from qubix_coordinator.db.database import Database
from qubix_protocol.api import Body, View
from tests.db.support_http import assembled

pytestmark = pytest.mark.asyncio
PAGES = ("page", "asset", "icon", "worker")
"""Endpoints of the web marketplace's own files and of those that workers install, which are no part of the API."""


async def test_description_is_valid_and_complete(db: Database, tmp_path: Path) -> None:
    app = (await assembled(db, tmp_path)).app
    document = await (await app.test_client().get("/openapi.json")).get_json()
    validate(document)
    assert document["openapi"].startswith("3.1")
    routes = {
        (re.sub(r"<(?:[^:>]*:)?([^>]+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        if not rule.websocket and rule.endpoint.partition("_")[0] not in PAGES
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert routes == described
    assert len(routes) > 20
    assert set(document["x-websockets"]) == {rule.rule for rule in app.url_map.iter_rules() if rule.websocket}


async def test_no_two_schemas_share_a_name() -> None:
    """They would become one component of the description, and one of them would be told wrongly."""
    found: dict[str, set[str]] = {}
    for module in pkgutil.walk_packages(qubix_protocol.__path__, "qubix_protocol."):
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and issubclass(kind, View | Body):
                found.setdefault(kind.__name__, set()).add(kind.__module__)
    assert len(found) > 50
    assert {name: where for name, where in found.items() if len(where) > 1} == {}


async def test_every_operation_says_how_it_fails(db: Database, tmp_path: Path) -> None:
    app = (await assembled(db, tmp_path)).app
    document = await (await app.test_client().get("/openapi.json")).get_json()
    names = []
    for methods in document["paths"].values():
        for operation in methods.values():
            names.append(operation["operationId"])
            assert "application/problem+json" in operation["responses"]["default"]["content"]
            assert operation["summary"]
    assert len(names) == len(set(names))
    assert {"Problem", "JobView", "AttemptView", "ListingView", "LiveEvent"} <= set(document["components"]["schemas"])
