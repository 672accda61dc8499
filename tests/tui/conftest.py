# SPDX-License-Identifier: Apache-2.0
import time
from collections.abc import Iterator

import pytest

from tests.tui.api import TuiApi


@pytest.fixture
def api() -> Iterator[TuiApi]:
    with TuiApi() as found:
        yield found


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Moments read the same on every machine."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
