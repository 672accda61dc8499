# SPDX-License-Identifier: Apache-2.0
"""`python -m qubix_tui` (`qubix tui`): the market in a terminal."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

from qubix.errors import BadUsage, QubixError
from qubix_protocol import usage
from qubix_tui.settings import Settings, from_environment
from qubix_tui.told import told

EXIT_FAILED = 1
EXIT_BAD_USAGE = 2
TRIES_MAX = 2
"""A person is in front of it: a failure is told soon, and the feed tries again by itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    summary = "The market in a terminal: offers live, jobs, rentals, provider, wallet, disputes, the mesh."
    usage.parser("qubix tui", summary, Settings).parse_args(arguments)
    try:
        settings = from_environment()
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            problem = "qubix tui needs a terminal, and this is none"
            raise BadUsage("terminal", problem, "Scripts use `qubix offers search --json` and the like.")
        return _run(replace(settings, tries_max=min(settings.tries_max, TRIES_MAX)))
    except (QubixError, OSError) as error:
        what = told(error)
        print(f"qubix tui: {what.problem}\n  remedy: {what.remedy}", file=sys.stderr)
        return EXIT_BAD_USAGE if isinstance(error, BadUsage) else EXIT_FAILED


def _run(settings: Settings) -> int:
    from qubix_tui.app import QubixApp

    settings.tui_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    form = "%(asctime)s %(levelname)s %(name)s %(message)s"
    logging.basicConfig(filename=settings.tui_dir / "tui.log", level=logging.WARNING, format=form)
    app = QubixApp(settings)
    app.run()
    return app.return_code or 0


if __name__ == "__main__":
    sys.exit(main())
