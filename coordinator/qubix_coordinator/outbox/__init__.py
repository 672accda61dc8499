# SPDX-License-Identifier: Apache-2.0
"""Events written in the transaction that caused them and read, in one order, by whoever follows."""

from qubix_coordinator.outbox.events import Event, emit, newest, oldest, prune, read
from qubix_coordinator.outbox.rules import START, Cursor, parse_cursor

__all__ = ["START", "Cursor", "Event", "emit", "newest", "oldest", "parse_cursor", "prune", "read"]
