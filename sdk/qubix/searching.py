# SPDX-License-Identifier: Apache-2.0
"""Query lines as arguments: looked at before anything is sent, so that an error points at its column at once."""

from typing import Final

from qubix.errors import BadUsage
from qubix_protocol.query import Query, QueryError, SortKey, parse, parse_order
from qubix_protocol.states import DeviceKind

PAGE: Final = 1_000
"""Offers in one answer, where all of them are asked for."""


def query(line: str, field: str = "query") -> Query:
    """Raises `BadUsage` that shows the place."""
    try:
        return parse(line)
    except QueryError as error:
        raise pointed(error, line, field) from None


def order(line: str, field: str = "order") -> tuple[SortKey, ...]:
    """Raises `BadUsage` that shows the place."""
    try:
        return parse_order(line)
    except QueryError as error:
        raise pointed(error, line, field) from None


def pointed(error: QueryError, line: str, field: str) -> BadUsage:
    shown = "" if len(line.splitlines()) > 1 else "\n  " + error.caret(line).replace("\n", "\n  ")
    return BadUsage(field, f"{field}, {error}{shown}", error.remedy)


def asked(
    line: str,
    by: str,
    kind: DeviceKind | str | None = None,
    backend: str | None = None,
    provider: str | None = None,
) -> dict[str, str | int]:
    """Of `GET /offers`. Raises `BadUsage`."""
    query(line)
    order(by)
    given = {"q": line, "order": by, "kind": kind, "backend": backend, "provider": provider}
    return {name: str(value) for name, value in given.items() if value not in (None, "")}
