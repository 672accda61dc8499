# SPDX-License-Identifier: Apache-2.0
"""`python -m qubix_node.selftest` (`qubix selftest`): whether this machine is fit for the market, check by check.

Exit status: 0 nothing fails, 1 something does, 2 bad usage or it could not be carried out.
"""

import argparse
import sys
import time
import uuid
from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from qubix_kernels.box.machine import NoBox
from qubix_node import files, logs
from qubix_node.errors import AlreadyRunning, NodeError
from qubix_node.selftest import alone
from qubix_node.selftest.asked import Ask, answer_to, ask
from qubix_node.settings import Settings, from_environment
from qubix_protocol import usage
from qubix_protocol.selftest import CheckStatus, SelfTest, failing
from qubix_protocol.settings import SettingsError

FAILED: Final = 1
NOT_CARRIED_OUT: Final = 2
_ANSWER_S: Final = 900.0
_POLL_S: Final = 0.1
_MARKS: Final = {
    CheckStatus.PASS: "ok  ",
    CheckStatus.WARN: "warn",
    CheckStatus.FAIL: "FAIL",
    CheckStatus.SKIP: "-   ",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    given = _parser().parse_args(arguments)
    named = {name: value for name, value in vars(given).items() if value is not None and name.isupper()}
    try:
        settings = from_environment(named)
    except SettingsError as problem:
        print(f"qubix selftest: {problem}", file=sys.stderr)
        return NOT_CARRIED_OUT
    logs.configure("WARNING")
    try:
        by, tests = _look(settings, quick=given.quick)
    except (NodeError, NoBox, OSError) as problem:
        print(f"qubix selftest: {problem}", file=sys.stderr)
        return NOT_CARRIED_OUT
    if given.json:
        print(msgspec.json.encode({"by": by, "tests": msgspec.to_builtins(tests)}).decode())
    else:
        _print(by, tests)
    return FAILED if any(failing(test.checks) for test in tests) else 0


def _parser() -> argparse.ArgumentParser:
    summary = (
        "Look whether this machine is fit for the market: driver, memory, heat, disk, ways, every kernel. A node that"
        " runs does it and reports it; without one it is done here, and nothing is reported. Exit status 0: nothing"
        " fails, 1: something does, 2: it could not be carried out."
    )
    parser = usage.parser("qubix selftest", summary, Settings)
    parser.add_argument("--json", action="store_true", help="one JSON value instead of lines")
    parser.add_argument("--quick", action="store_true", help="only what takes no measuring")
    for option, variable, text in (
        ("--data-dir", "QUBIX_DATA_DIR", "the node's data folder"),
        ("--coordinator", "QUBIX_COORDINATOR_URL", "the coordinator's HTTP address"),
        ("--devices", "QUBIX_NODE_DEVICES", "auto, gpu or cpu"),
    ):
        parser.add_argument(option, dest=variable, metavar="…", help=f"{text} ({variable})")
    return parser


def _look(settings: Settings, *, quick: bool) -> tuple[str, tuple[SelfTest, ...]]:
    """By whom, and one test for each device. Raises `NodeError`, `NoBox` or OSError."""
    try:
        with files.locked(settings.node_dir):
            return "alone", tuple(_unwrapped(settings, quick))
    except AlreadyRunning:
        return "node", _by_the_node(settings, quick)


def _unwrapped(settings: Settings, quick: bool) -> list[SelfTest]:
    """Of a group that tasks ended with, the one error that is ours to tell."""
    try:
        return trio.run(lambda: alone.look(settings, quick=quick))
    except BaseExceptionGroup as group:
        told = group.subgroup(NodeError)
        if told is None:
            raise
        raise _first(told) from None


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _by_the_node(settings: Settings, quick: bool) -> tuple[SelfTest, ...]:
    question = Ask(ask_id=str(uuid.uuid4()), quick=quick)
    ask(settings.node_dir, question)
    deadline_s = time.monotonic() + _ANSWER_S
    while time.monotonic() < deadline_s:
        tests = answer_to(settings.node_dir, question)
        if tests is not None:
            return tests
        time.sleep(_POLL_S)
    raise NodeError("the node that runs on this folder did not answer: look at its log, or stop it and test again")


def _print(by: str, tests: Sequence[SelfTest]) -> None:
    print(
        "Tested by the running node, and reported to the market."
        if by == "node"
        else "No node runs on this folder: tested alone, nothing is reported."
    )
    for test in tests:
        print(f"\n{test.device_id}  ({test.took_ms / 1000:.1f} s)")
        for check in test.checks:
            needs = f"   needs {check.needed}" if check.required and check.status is not CheckStatus.PASS else ""
            print(f"  {_MARKS[check.status]}  {check.title:<28} {check.found}{needs}")
            if check.status in (CheckStatus.FAIL, CheckStatus.WARN):
                print(f"        why: {check.purpose}\n        do:  {check.remedy}")
    bad = sum(len(failing(test.checks)) for test in tests)
    print(f"\n{bad} of {sum(len(test.checks) for test in tests)} checks fail." if bad else "\nNothing fails.")


if __name__ == "__main__":
    sys.exit(main())
