# SPDX-License-Identifier: Apache-2.0
"""Whether what is shown is of now. Pure."""

from enum import StrEnum
from typing import Final

_ICONS: Final = {"connecting": "◌", "live": "●", "reconnecting": "◍", "offline": "○"}


class Standing(StrEnum):
    CONNECTING = "connecting"
    LIVE = "live"
    RECONNECTING = "reconnecting"
    """The connection broke; the last data stays."""
    OFFLINE = "offline"
    """It could not be made again so far; the last data stays, marked."""


class Link:
    """The connection as it stands. `heard_s` is when something was told last, by a monotonic clock."""

    def __init__(self) -> None:
        self.standing = Standing.CONNECTING
        self.heard_s: float | None = None
        self.problem = ""

    def heard(self, now_s: float) -> None:
        self.standing, self.heard_s, self.problem = Standing.LIVE, now_s, ""

    def lost(self, problem: str) -> None:
        """For the first time: being made anew; again: offline."""
        known = self.standing is Standing.LIVE and self.heard_s is not None
        self.standing = Standing.RECONNECTING if known else Standing.OFFLINE
        self.problem = problem

    @property
    def current(self) -> bool:
        return self.standing is Standing.LIVE

    def text(self, now_s: float) -> str:
        """An icon, a word, and how old the data is."""
        words = f"{_ICONS[self.standing]} {self.standing}"
        if self.heard_s is None:
            return words
        age = ago(now_s - self.heard_s)
        return f"{words} · heard {age} ago" if self.current else f"{words} · data {age} old"


def ago(seconds: float) -> str:
    """In its largest unit."""
    whole = max(0, int(seconds))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if whole >= size:
            return f"{whole // size} {unit}"
    return f"{whole} s"
