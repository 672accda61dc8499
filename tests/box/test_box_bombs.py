# SPDX-License-Identifier: Apache-2.0
"""Data that is a weapon, through real tasks in the box: each is refused or ends by its limit, and none is executed."""

import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from qubix_kernels.box import machine
from qubix_kernels.tasks import RunTask, TaskFailed, VerifyDone, decode_event
from qubix_kernels.zygote import SERVE
from qubix_protocol.arrays import to_npy
from qubix_protocol.errors import Malformed
from tests.box.world import MIB, Lair
from tests.kernels.worker_world import hear_all, say


@pytest.fixture(scope="module")
def shared_lair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lair]:
    made = Lair(tmp_path_factory.mktemp("lair"), machine.found_here(), SERVE)
    yield made
    made.close()


@pytest.fixture
def lair(shared_lair: Lair) -> Iterator[Lair]:
    yield shared_lair
    for path in shared_lair.mine.glob("bomb*"):
        path.unlink()
    shared_lair.check_health()


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('executed')",))


def npy(shape: str, descr: str = "'<f4'", version: bytes = b"\x01\x00", body: bytes = b"\0" * 64) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    size = len(header).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + size + header + body


def zip_of_zeros() -> bytes:
    """Some kilobytes that unpack to a gigabyte."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        for _ in range(64):
            file.write(bytes(MIB))
    return made.getvalue()


INPUTS = {
    "a pickle in an array": npy("(1,)", "'|O'", body=pickle.dumps(Payload())),
    "a pickle": pickle.dumps(Payload()),
    "objects": npy("(4,)", "'O'"),
    "a shape beyond all memory": npy("(1099511627776, 1099511627776)"),
    "a shape that overflows": npy("(9223372036854775807, 2)"),
    "a negative shape": npy("(-1, 4)"),
    "a shape of a million axes": npy("(" + "1," * 20_000 + ")"),
    "an expression for a shape": npy("(9**9**9**9,)"),
    "a call for a shape": npy("(exit(),)"),
    "a type with a million fields": npy("(1,)", "[" + "('a','<f4')," * 2_000 + "]"),
    "a header without end": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 1000,
    "deep brackets": npy("(" * 5_000 + ")" * 5_000),
    "an archive of arrays": zip_of_zeros(),
    "nothing": b"",
}


@pytest.mark.parametrize("title", sorted(INPUTS))
def test_an_input_that_is_a_weapon_is_bad_input(lair: Lair, title: str) -> None:
    path = lair.mine / "bomb.npy"
    path.write_bytes(INPUTS[title])
    task = lair.honest.run(chunk_units=16)
    worker = lair.fork(memory_bytes=600 * MIB)
    with worker.sock:
        say(worker.sock, RunTask(**{**as_words(task), "inputs": {"a": str(path), "b": task.inputs["b"]}}))
        (event,) = hear_all(worker.sock)
    assert isinstance(event, TaskFailed)
    assert event.code == "bad_input", event
    assert "executed" not in event.detail
    assert lair.end(worker).status == 0


def as_words(task: RunTask) -> dict[str, Any]:
    return {name: getattr(task, name) for name in task.__struct_fields__}


def deep() -> bytes:
    return b"\x91" * 200_000 + b"\x90"


OUTPUTS = {
    "a pickle": pickle.dumps(Payload()),
    "deep lists": deep(),
    "a map that claims two thousand million entries": b"\xdf\x7f\xff\xff\xff",
    "bytes that claim to be four gigabytes": b"\x81\xa1c\xc6\xff\xff\xff\xff",
    "an array of a shape that it has not": msgpack.packb({"c": {"dtype": "float32", "shape": [2**40, 2**40]}}),
    "extensions": b"\xc9\x00\x00\x00\x10\x05" + bytes(16),
    "nothing": b"",
    "numbers": np.arange(1000).tobytes(),
    "an array file": to_npy(np.zeros((16, 12), np.float32)),
}


@pytest.mark.parametrize("title", sorted(OUTPUTS))
def test_an_output_that_is_a_weapon_is_a_wrong_result(lair: Lair, title: str) -> None:
    part = lair.honest.part(0, 16)
    Path(part.path).write_bytes(OUTPUTS[title])
    try:
        worker = lair.zygote.fork(scratch=lair.mine)
        with worker.sock:
            say(worker.sock, lair.honest.verify(part))
            (verdict,) = hear_all(worker.sock)
        assert isinstance(verdict, VerifyDone)
        assert (verdict.accepted, verdict.reason) == (False, "shape"), verdict
        assert lair.end(worker).status == 0
    finally:
        Path(part.path).unlink()


def test_rubbish_for_a_task_is_no_task(lair: Lair) -> None:
    for body in (b"\xc1", deep(), pickle.dumps(Payload())):
        worker = lair.fork()
        with worker.sock:
            worker.sock.settimeout(60)
            worker.sock.sendall(len(body).to_bytes(4, "big") + body)
            (event,) = hear_all(worker.sock)
        assert isinstance(event, TaskFailed)
        assert (event.code, event.detail.startswith("not a task")) == ("bad_input", True)
        assert lair.end(worker).status == 0


CHUNK = {
    "t": "chunk",
    "index": 0,
    "start": 0,
    "stop": 1,
    "path": "x",
    "size_bytes": 1,
    "digest": bytes(32),
    "run_ms": 1.0,
}
SAYINGS = {
    "time that is no number": CHUNK | {"run_ms": float("nan")},
    "endless time": CHUNK | {"run_ms": float("inf")},
    "time that runs backwards": CHUNK | {"run_ms": -1.0},
    "a short digest": CHUNK | {"digest": b"x"},
    "a size below nothing": CHUNK | {"size_bytes": -1},
    "a size that no wire holds": CHUNK | {"size_bytes": 2**63},
    "a unit before the first": CHUNK | {"start": -5},
    "a path without end": CHUNK | {"path": "a" * 100_000},
    "a number for a path": CHUNK | {"path": 7},
    "more than is known": CHUNK | {"more": 1},
    "a reason without end": {"t": "failed", "code": "x" * 1000, "detail": ""},
    "a million verdicts": {
        "t": "verify_done",
        "accepted": True,
        "reason": "ok",
        "detail": "",
        "parts": [True] * 10**6,
        "check_ms": 1.0,
    },
    "an unknown event": {"t": "fork"},
    "nothing": {},
}


@pytest.mark.parametrize("title", sorted(SAYINGS))
def test_what_a_captured_worker_says_is_bounded(title: str) -> None:
    assert decode_event(msgpack.packb(CHUNK)) is not None
    with pytest.raises(Malformed):
        decode_event(msgpack.packb(SAYINGS[title]))


@pytest.mark.parametrize("body", [b"\x81\xa1t\xa5\xff\xfe\xfd\xfc\xfb", b"\x81\xa1\xff\x01", deep(), b"", b"\xc1"])
def test_what_is_no_message_pack_is_no_event(body: bytes) -> None:
    with pytest.raises(Malformed):
        decode_event(body)
