# SPDX-License-Identifier: Apache-2.0
"""Where Tortoise finds the models: `tables.py` of each capability that has one."""

import importlib.util

CAPABILITIES = (
    "accounts",
    "ledger",
    "outbox",
    "artifacts",
    "market",
    "telemetry",
    "withdrawals",
    "jobs",
    "rentals",
    "disputes",
    "spots",
)


def table_modules() -> list[str]:
    names = [f"qubix_coordinator.{capability}.tables" for capability in CAPABILITIES]
    return [name for name in names if _exists(name)]


def _exists(name: str) -> bool:
    package = name.rpartition(".")[0]
    return importlib.util.find_spec(package) is not None and importlib.util.find_spec(name) is not None
