# SPDX-License-Identifier: Apache-2.0
"""Log lines for a person at a terminal: time, a constant event, its facts."""

import logging
import sys
from datetime import datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CHATTY = ("httpx", "httpcore", "libp2p", "multiaddr")


def configure(level: str) -> None:
    """Replaces the root logger's handlers by one on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


class TextFormatter(logging.Formatter):
    """`12:00:01 job.accepted  kernel=matmul attempt=3f2a…`; the level is named from WARNING up."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = [record.levelname] if record.levelno != logging.INFO else []
        facts = [f"{key}={value}" for key, value in vars(record).items() if key not in _STANDARD]
        line = " ".join([at, *level, record.getMessage(), *facts])
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
