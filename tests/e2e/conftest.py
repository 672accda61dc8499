# SPDX-License-Identifier: Apache-2.0
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.market import Market


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short, reachable path: sockets have short names, and the database may run as another user."""
    path = Path(tempfile.mkdtemp(prefix="qx-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def market(folder: Path) -> Iterator[Market]:
    with Market(folder) as running:
        yield running
