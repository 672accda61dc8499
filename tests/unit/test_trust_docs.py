# SPDX-License-Identifier: Apache-2.0
"""The threat model promises tests by name: each must exist, and each rule is named by a test that holds it."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MODEL = (TESTS.parent / "docs/threat-model.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", MODEL)))
IDS = {"M": 10, "C": 6, "P": 5, "D": 3, "A": 3, "Q": 2, "B": 2, "I": 11}
"""How many rules each letter has."""
NOTHING_TO_HOLD_YET = {"D2"}


def _rules() -> dict[str, set[str]]:
    """The files of each rule's rows; rows of requirements have letters of their own."""
    found: dict[str, set[str]] = {}
    rows = [line.strip("|").split(" | ") for line in MODEL.splitlines() if line.startswith("| ")]
    for ids, short, _, tests in (row for row in rows if len(row) == 4):
        if not short.startswith("Requirement"):
            every = ids.replace("I1–I11", " ".join(f"I{number}" for number in range(1, 12)))
            for one in re.findall(r"\b[A-Z]\d+\b", every):
                found.setdefault(one, set()).update(re.findall(r"`([\w/]+\.py)", tests))
    return found


RULES = _rules()


def test_tests_are_named() -> None:
    assert len(NAMED) > 50


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_each_named_test_exists(file: str, test: str) -> None:
    assert re.search(rf"^(async )?def {test}\(", (TESTS / file).read_text(), re.MULTILINE)


def test_every_rule_has_a_row() -> None:
    everything = {f"{letter}{number + 1}" for letter, most in IDS.items() for number in range(most)}
    assert set(RULES) == everything - NOTHING_TO_HOLD_YET


@pytest.mark.parametrize("rule", sorted(RULES))
def test_each_rule_is_named_by_a_test_that_holds_it(rule: str) -> None:
    texts = [(TESTS / file).read_text() for file in sorted(RULES[rule])]
    assert any(re.search(rf"\b{rule}\b|_{rule.lower()}_", text) for text in texts)
