# SPDX-License-Identifier: Apache-2.0
"""A fact of a log line must not be named as `logging` names something of its own: the line would raise where it is
written, and only at the level at which it is."""

import ast
import logging
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("protocol", "kernels", "chain", "mesh", "node", "coordinator", "sdk", "tui")
TAKEN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def taken_names(source: str) -> list[tuple[int, str]]:
    """Line and name of each fact in an `extra={…}` that `logging` refuses."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Dict):
            for key in node.value.keys:
                if isinstance(key, ast.Constant) and key.value in TAKEN:
                    found.append((key.lineno, key.value))
    return found


def test_the_facts_of_log_lines_have_names_of_their_own() -> None:
    files = [path for part in PARTS for path in (ROOT / part).rglob("*.py")]
    assert len(files) > 200
    wrong = {str(path.relative_to(ROOT)): found for path in files if (found := taken_names(path.read_text()))}
    assert wrong == {}


def test_a_taken_name_is_found() -> None:
    assert taken_names('log.info("x", extra={"created": 1, "job": 2})') == [(1, "created")]
