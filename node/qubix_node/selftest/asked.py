# SPDX-License-Identifier: Apache-2.0
"""`qubix selftest` speaks to the node that runs by two small files in its folder: the question, and the answer to it.

As with maintenance, whoever may write the folder may ask.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from qubix_node import files
from qubix_protocol.messages import Id
from qubix_protocol.selftest import SelfTest

log = logging.getLogger("qubix_node")
_QUESTION: Final = "selftest.ask"
_ANSWER: Final = "selftest.json"
_BYTES_MAX: Final = 4 * 1024 * 1024


class Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    ask_id: Id
    quick: bool


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One self-test for each device."""

    ask_id: Id
    tests: tuple[SelfTest, ...]


class Asked:
    """The running node's side. Its methods block on the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def look(self) -> Ask | None:
        """A question, once."""
        path = self._folder / _QUESTION
        try:
            raw = path.read_bytes()[:_BYTES_MAX]
            path.unlink()
            return msgspec.json.decode(raw, type=Ask)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as problem:
            log.warning("selftest.question_unreadable", extra={"reason": str(problem)})
            return None

    def answer(self, ask: Ask, tests: Sequence[SelfTest]) -> None:
        data = msgspec.json.encode(Answer(ask_id=ask.ask_id, tests=tuple(tests)))
        try:
            files.write_atomically(self._folder / _ANSWER, data)
        except OSError as problem:
            log.warning("selftest.not_kept", extra={"reason": str(problem)})


def ask(folder: Path, question: Ask) -> None:
    """Raises OSError."""
    files.write_atomically(folder / _QUESTION, msgspec.json.encode(question))


def answer_to(folder: Path, question: Ask) -> tuple[SelfTest, ...] | None:
    """None until it is there."""
    try:
        found = msgspec.json.decode((folder / _ANSWER).read_bytes(), type=Answer)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return found.tests if found.ask_id == question.ask_id else None
