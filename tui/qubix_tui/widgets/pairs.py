# SPDX-License-Identifier: Apache-2.0
"""Names and values under each other, in sections."""

from collections.abc import Iterable, Sequence

from rich.text import Text
from textual.widgets import Static

Pairs = Sequence[tuple[str, str]]


def pairs(given: Iterable[tuple[str, str]], *, title: str = "") -> Text:
    """Those with a value; no value is markup."""
    kept = [(name, value) for name, value in given if value]
    edge = max((len(name) for name, _ in kept), default=0)
    found = Text(no_wrap=False)
    if title:
        found.append(f"{title}\n", "bold underline")
    for name, value in kept:
        first, *more = value.split("\n")
        found.append(f"{name:<{edge}}  ", "dim")
        found.append(f"{first}\n")
        for line in more:
            found.append(f"{'':<{edge}}  {line}\n")
    return found


def section(title: str, lines: Iterable[str]) -> Text:
    found = Text(f"{title}\n", "bold underline")
    for line in lines:
        found.append(f"{line}\n", "not bold not underline")
    return found


class Sheet(Static):
    """Text parts with an empty line between."""

    def put(self, *parts: Text) -> None:
        self.update(Text("\n").join([part for part in parts if part.plain]))
