# SPDX-License-Identifier: Apache-2.0
"""Each error of ours has a status, a code and words; nothing of the inside shows."""

import inspect
from collections.abc import Iterator

import msgspec
import pytest

from qubix_coordinator import errors
from qubix_coordinator.http import problems
from qubix_protocol import errors as protocol
from qubix_protocol.api import JobBody


def leaves(root: type[BaseException]) -> Iterator[type[BaseException]]:
    children = root.__subclasses__()
    if not children:
        yield root
    for child in children:
        yield from leaves(child)


def test_every_error_is_mapped() -> None:
    found = {*leaves(errors.QubixError), *leaves(protocol.ProtocolError)}
    declared = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.QubixError)}
    assert len(found) > 15
    for kind in found | declared - {errors.QubixError}:
        assert 400 <= problems.kind_of(kind).status <= 599


def test_refusals_are_4xx_and_faults_5xx() -> None:
    for kind in leaves(errors.Refused):
        assert 400 <= problems.kind_of(kind).status < 500
    for kind in leaves(errors.Fault):
        assert problems.kind_of(kind).status >= 500


def test_an_error_outside_the_trees_is_not_guessed() -> None:
    with pytest.raises(LookupError):
        problems.kind_of(KeyError)


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [
        (errors.NotEnoughBalance, "not_enough_balance", 402),
        (errors.CauseReused, "cause_reused", 409),
        (errors.StaleAttempt, "stale_attempt", 409),
        (errors.WrongNetwork, "wrong_network", 403),
        (protocol.Replayed, "replayed", 401),
        (protocol.TooLarge, "too_large", 413),
        (protocol.Malformed, "malformed", 400),
    ],
)
def test_code_and_status(kind: type[Exception], code: str, status: int) -> None:
    told = problems.problem_of(kind("words"))
    assert (told.code, told.status, told.detail) == (code, status, "words")


@pytest.mark.parametrize(
    ("body", "field", "remedy"),
    [
        (b'{"kernel": 1, "inputs": {}, "cap_qu": 1}', "kernel", "Give `str`"),
        (b'{"kernel": "matmul", "inputs": {}, "cap_qu": -1}', "cap_qu", "Give `int` >= 0"),
        (b'{"kernel": "matmul", "inputs": {}}', "cap_qu", "Add the field"),
        (b'{"kernel": "matmul", "inputs": {}, "cap_qu": 1, "capp": 2}', "capp", "Remove the field"),
        (b'{"kernel": "matmul", "inputs": {"a": {"digest": "x"}}, "cap_qu": 1}', "inputs[...].digest", "Give `str`"),
        (b"[]", "body", "Give `object`"),
    ],
)
def test_a_wrong_field_is_named_with_its_remedy(body: bytes, field: str, remedy: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(body, type=JobBody)
    told = problems.problem_of(caught.value)
    assert told.status == 422
    assert told.field == field
    assert told.remedy.startswith(remedy)
    assert told.problems[0].field == field
