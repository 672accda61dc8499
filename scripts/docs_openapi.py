# SPDX-License-Identifier: Apache-2.0
"""Writes web/openapi.json, from which the web marketplace's types are made: `make docs`. A test keeps it fresh."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, cast

from qubix_coordinator.http.context import Context
from qubix_coordinator.http.openapi import describe
from qubix_coordinator.http.server import create_app

FILE = Path(__file__).resolve().parent.parent / "web" / "openapi.json"


async def _document() -> dict[str, Any]:
    # Nothing is served: the description needs the routes, and nothing that they work with.
    app = create_app(cast(Context, None))
    async with app.app_context():
        return describe(app)


def text() -> str:
    # As it is served: statuses become text first, so that everything can be put in order.
    served = json.loads(json.dumps(asyncio.run(_document())))
    return json.dumps(served, indent=1, sort_keys=True) + "\n"


def main() -> int:
    FILE.write_text(text())
    print(f"wrote {FILE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
