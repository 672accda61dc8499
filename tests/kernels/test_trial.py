# SPDX-License-Identifier: Apache-2.0
"""Trials of hardware (trust C6): every back end gives the digests that the seed says, and nothing cheaper does."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qubix_kernels import sass
from qubix_kernels.tasks import TaskFailed, decode_event, encode_frame, frame_length
from qubix_kernels.trial import rules
from qubix_kernels.trial.cpu import CpuMemory
from qubix_kernels.trial.frames import TrialDone, TrialFull, TrialKey, TrialRoom, TrialSeed, TrialTask
from qubix_kernels.zygote import Worker, Zygote
from qubix_protocol.trials import DIGESTS_BYTES_MAX, TrialShape
from tests.kernels import trial_simulated as tiny

ROOT = Path(__file__).resolve().parents[2]
SEED, KEY, DEVICE = b"s" * 32, b"k" * 32, "cpu-1"
SHAPE = rules.shape_of(4 << 20, 1e8, "cpu")


def answer(shape: TrialShape = SHAPE, seed: bytes = SEED, key: bytes = KEY, device: str = DEVICE) -> list[int]:
    memory = CpuMemory(shape, device)
    memory.fill(seed)
    return [int(one) for one in rules.read_digests(memory.digests(key))]


def test_a_filled_memory_answers_what_the_seed_says_page_by_page() -> None:
    assert answer() == rules.expected(SHAPE, SEED, KEY, DEVICE, list(range(SHAPE.pages)))


@pytest.mark.parametrize("changed", [{"seed": b"t" * 32}, {"key": b"l" * 32}, {"device": "cpu-2"}])
def test_another_seed_key_or_device_has_another_answer_on_every_page(changed: dict[str, object]) -> None:
    assert not any(one == other for one, other in zip(answer(), answer(**changed), strict=True))  # type: ignore[arg-type]


def test_one_wrong_bit_in_one_word_is_another_digest_of_its_page() -> None:
    at = rules.places(rules.secret_of(KEY, DEVICE, "key"), SHAPE)
    page = rules.Right(SHAPE, SEED, DEVICE).page(0)
    room, spare = np.empty_like(at), np.empty_like(at)
    right = rules.digest(page, at, room, spare)
    for bit in range(32):
        page[7, 11] ^= np.uint32(1 << bit)
        assert rules.digest(page, at, room, spare) != right
        page[7, 11] ^= np.uint32(1 << bit)
    swapped = page.copy()
    swapped[0, 0], swapped[0, 1] = page[0, 1], page[0, 0]
    assert rules.digest(swapped, at, room, spare) != right, "a sorted memory would pack smaller"


def test_words_fill_their_32_bits_and_the_products_are_exact() -> None:
    words = rules.Right(SHAPE, SEED, DEVICE).page(0).reshape(-1)
    for shift in range(0, 32, 8):
        counts = np.bincount((words >> np.uint32(shift)) & np.uint32(0xFF), minlength=256)
        assert counts.std() < 3 * np.sqrt(words.size / 256), "what packs smaller than it is claimed proves nothing"
    left = rules.entries((1, 2), 0, 64, rules.DEPTH_MAX)
    right = rules.entries((3, 4), 0, rules.DEPTH_MAX, 64)
    assert np.array_equal(left @ right, (left.astype(np.float64) @ right.astype(np.float64)).astype(np.float32))
    assert np.abs(left @ right).max() < 2**23


@pytest.mark.parametrize(
    ("memory_gib", "gflops", "backend"),
    [(80, 40_000, "cuda"), (24, 50_000, "cuda"), (8, 5_000, "cuda"), (0.25, 30, "cpu"), (1e-6, 1e-3, "cpu")],
)
def test_a_trial_fits_its_memory_its_message_and_the_coordinator(
    memory_gib: float, gflops: float, backend: str
) -> None:
    room = int(memory_gib * 2**30)
    shape = rules.shape_of(room, 8e9 * gflops, backend)
    assert rules.fill_bytes(shape) <= max(room, rules.ROWS_MIN * rules.COLUMNS * 4)
    assert rules.fill_bytes(shape) >= 0.9 * room
    assert 4 * shape.pages <= DIGESTS_BYTES_MAX
    assert rules.DEPTH_MIN[backend] <= shape.depth <= rules.DEPTH_MAX
    assert 4.0 * shape.rows * shape.columns * shape.depth < 4e10, "what one page costs who checks it"


@pytest.mark.parametrize("architecture", [pytest.param("7.5", marks=pytest.mark.slow), "9.0"])
def test_the_cuda_back_end_becomes_machine_code_without_spills(architecture: str) -> None:
    found = sass.report(architecture, "qubix_kernels.trial.cuda")
    assert [one.function for one in found] == ["trial_entries", "trial_pack", "trial_digest"]
    for one in found:
        assert (one.local_bytes, one.spilled_bytes) == (0, 0), one
        assert one.registers <= one.registers_max, one
        assert one.registers * one.threads * one.blocks_per_sm <= 64 * 1024, one


def test_the_cuda_back_end_answers_the_same_in_the_simulator() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.trial_simulated"],
        cwd=ROOT,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = rules.read_digests(bytes.fromhex(done.stdout.strip())).tolist()
    assert found == rules.expected(tiny.SHAPE, tiny.SEED, tiny.KEY, tiny.DEVICE, list(range(tiny.SHAPE.pages)))


# In a worker --------------------------------------------------------------------------------------------------------


def exactly(worker: Worker, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = worker.sock.recv(size - len(data))
        assert more, "the worker ended early"
        data += more
    return data


def heard(worker: Worker) -> object:
    return decode_event(exactly(worker, frame_length(exactly(worker, 4))))


def told(worker: Worker, frame: object) -> object:
    worker.sock.sendall(encode_frame(frame))  # type: ignore[arg-type]
    return heard(worker)


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("trial")
    zygote = Zygote.start(folders=[folder])
    yield zygote, folder
    zygote.close()


def task(**changed: object) -> TrialTask:
    return TrialTask(**({"backend": "cpu", "device_id": DEVICE, "shape": SHAPE} | changed))  # type: ignore[arg-type]


def test_a_worker_waits_for_seed_and_key_in_the_box(zygote: tuple[Zygote, Path]) -> None:
    worker = zygote[0].fork(scratch=zygote[1])
    with worker.sock:
        worker.sock.settimeout(60)
        assert isinstance(told(worker, task()), TrialRoom)
        assert isinstance(told(worker, TrialSeed(seed=SEED)), TrialFull)
        done = told(worker, TrialKey(key=KEY))
    assert isinstance(done, TrialDone)
    assert rules.read_digests(done.digests).tolist() == answer()


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"shape": TrialShape(pages=16_384, rows=2**16, columns=1024, depth=256)}, "out_of_memory"),
        ({"backend": "cuda"}, "kernel_error"),
        ({"backend": "tea_leaves"}, "kernel_error"),
    ],
)
def test_what_a_device_does_not_have_is_said(
    zygote: tuple[Zygote, Path], changed: dict[str, object], code: str
) -> None:
    worker = zygote[0].fork(scratch=zygote[1])
    with worker.sock:
        worker.sock.settimeout(60)
        failed = told(worker, task(**changed))
    assert isinstance(failed, TaskFailed)
    assert failed.code == code


def test_words_out_of_turn_end_the_worker(zygote: tuple[Zygote, Path]) -> None:
    worker = zygote[0].fork(scratch=zygote[1])
    with worker.sock:
        worker.sock.settimeout(60)
        assert isinstance(told(worker, task()), TrialRoom)
        failed = told(worker, TrialKey(key=KEY))
    assert isinstance(failed, TaskFailed)
    assert failed.code == "bad_input"
