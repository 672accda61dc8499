# SPDX-License-Identifier: Apache-2.0
"""`--help` of a process: what it is, its options, and every setting it reads."""

import argparse
import textwrap
from collections.abc import Iterator
from typing import Any, Final

from qubix_protocol.settings import Row, describe

_WIDTH: Final = 79


def parser(program: str, summary: str, settings: type[Any]) -> argparse.ArgumentParser:
    """Takes no arguments yet. `parse_args` exits with status 0 for `--help` and 2 for what it does not know."""
    return argparse.ArgumentParser(
        prog=program,
        description=textwrap.fill(summary, _WIDTH),
        epilog="\n".join(_lines(describe(settings))),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _lines(rows: list[Row]) -> Iterator[str]:
    yield "settings, read from the environment:"
    for row in rows:
        yield f"  {row.env}"
        told = f"{row.doc} Default: {row.default}." if row.default != "required" else f"{row.doc} Required."
        yield textwrap.fill(told, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
