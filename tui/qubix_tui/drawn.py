# SPDX-License-Identifier: Apache-2.0
"""Small pictures out of characters, readable without colour: sparklines, charts, bars, QR codes. Pure."""

from collections.abc import Sequence
from typing import Final

import segno

BLOCKS: Final = "▁▂▃▄▅▆▇█"
_HALVES: Final = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
QUIET: Final = 2
"""Modules of margin around a QR code: fewer than the standard's four, and what readers of screens need."""


def spark(values: Sequence[float | None], width: int, low: float = 0.0, high: float = 100.0) -> str:
    """The newest `width` values, right aligned; a gap where nothing was told."""
    newest = list(values)[-width:]
    return "".join(_block(value, low, high) for value in newest).rjust(width)


def _block(value: float | None, low: float, high: float) -> str:
    if value is None:
        return " "
    share = (value - low) / (high - low) if high > low else 0.0
    return BLOCKS[min(len(BLOCKS) - 1, max(0, int(share * len(BLOCKS))))]


def bar(fraction: float, width: int) -> str:
    """[████····], whole at 1 alone."""
    inside = max(1, width - 2)
    done = min(inside, max(0, int(fraction * inside)))
    return f"[{'█' * done}{'·' * (inside - done)}]"


def bucketed(values: Sequence[float | None], width: int) -> list[float | None]:
    """As many values as columns: means of equal stretches, None where a stretch tells nothing."""
    if not values:
        return [None] * width
    if len(values) <= width:
        return [None] * (width - len(values)) + list(values)
    found: list[float | None] = []
    for at in range(width):
        part = values[at * len(values) // width : (at + 1) * len(values) // width]
        known = [value for value in part if value is not None]
        found.append(sum(known) / len(known) if known else None)
    return found


def chart(
    values: Sequence[float | None], width: int, height: int, *, low: float = 0.0, high: float = 100.0, unit: str = ""
) -> list[str]:
    """`height` lines of columns with the scale at the left, the newest at the right."""
    top, bottom = f"{high:,.0f}{unit}", f"{low:,.0f}{unit}"
    edge = max(len(top), len(bottom))
    room = max(1, width - edge - 1)
    columns = bucketed(values, room)
    lines = []
    for row in range(height):
        label = top if row == 0 else bottom if row == height - 1 else ""
        cells = "".join(_cell(value, height - 1 - row, height, low, high) for value in columns)
        lines.append(f"{label:>{edge}}{'┤' if label else '│'}{cells}")
    return lines


def _cell(value: float | None, level: int, height: int, low: float, high: float) -> str:
    if value is None or high <= low:
        return " "
    eighths = round((value - low) / (high - low) * height * len(BLOCKS)) - level * len(BLOCKS)
    if level == 0:
        eighths = max(1, eighths)
    return " " if eighths <= 0 else BLOCKS[min(len(BLOCKS), eighths) - 1]


def qr(text: str) -> list[str]:
    """Two modules in each character. Dark modules are blank, so that it has to stand in light on a dark ground."""
    matrix = [[bool(module) for module in row] for row in segno.make(text, micro=False).matrix_iter(border=QUIET)]
    if len(matrix) % 2:
        matrix.append([False] * len(matrix[0]))
    return [
        "".join(_HALVES[not upper, not lower] for upper, lower in zip(matrix[at], matrix[at + 1], strict=True))
        for at in range(0, len(matrix), 2)
    ]
