# SPDX-License-Identifier: Apache-2.0
"""Whether the database answers. A change is logged once, however many notice it."""

import logging
import time

log = logging.getLogger(__name__)


class Outage:
    def __init__(self) -> None:
        self._since_s: float | None = None

    @property
    def lasts(self) -> bool:
        return self._since_s is not None

    def begin(self, problem: BaseException) -> None:
        if self._since_s is None:
            self._since_s = time.monotonic()
            # One line says it: the trace would only tell who happened to ask first.
            log.error("db.away", extra={"problem": f"{type(problem).__name__}: {problem}"[:300]})

    def end(self) -> None:
        if self._since_s is not None:
            away_ms = round((time.monotonic() - self._since_s) * 1000)
            self._since_s = None
            log.warning("db.back", extra={"away_ms": away_ms})
