# SPDX-License-Identifier: Apache-2.0
"""Every kernel's CUDA code becomes machine code for every architecture: no spills, registers and memory as stated.

No GPU and no driver are needed; where the compiler parts are missing these tests fail.
"""

import functools
import subprocess
import sys

import pytest

from qubix_kernels import get, names, sass
from tests.kernels.simulator import ROOT

PLANTED = "tests.kernels.planted_cuda"
SHARED_BYTES = {"7.5": 64 * 1024, "8.0": 164 * 1024, "9.0": 228 * 1024, "12.0": 100 * 1024}
THREADS = {"7.5": 1024, "8.0": 2048, "9.0": 2048, "12.0": 1536}
REGISTERS = 64 * 1024
DAILY = ("7.5", "9.0")
"""The one with the least room, and the one that cards here are of."""
CASES = [pytest.param(one, marks=() if one in DAILY else pytest.mark.slow) for one in sass.ARCHITECTURES]
RESERVED_BYTES = 1024
"""Of shared memory, by the system, for each block (compute capability 8.0 and newer)."""


@functools.cache
def report(architecture: str) -> list[sass.Compiled]:
    return sass.report(architecture, *sass.modules(), PLANTED)


@pytest.mark.parametrize("architecture", CASES)
def test_every_function_fits_the_machine_as_its_author_says(architecture: str) -> None:
    found = [one for one in report(architecture) if one.kernel != PLANTED]
    assert {one.kernel for one in found} == set(sass.modules())
    for one in found:
        assert (one.local_bytes, one.spilled_bytes) == (0, 0), one
        assert one.registers <= one.registers_max, one
        assert -(-one.registers // 8) * 8 * one.threads * one.blocks_per_sm <= REGISTERS, one  # given out in eights
        assert one.threads * one.blocks_per_sm <= THREADS[architecture], one
        assert (one.shared_bytes + RESERVED_BYTES) * one.blocks_per_sm <= SHARED_BYTES[architecture], one
        assert one.shared_bytes <= 48 * 1024, one  # what a launch may have without asking


@pytest.mark.parametrize("architecture", CASES)
def test_local_memory_would_be_noticed(architecture: str) -> None:
    planted = {one.function: one for one in report(architecture) if one.kernel == PLANTED}
    assert planted["axpy"].local_bytes == 0
    assert 8 <= planted["axpy"].registers <= 32
    assert planted["spills"].local_bytes >= 32 * 4


def test_each_kernel_with_a_cuda_back_end_is_compiled() -> None:
    have = [name for name in names() if "cuda" in get(name).spec.backends]
    assert {*sass.modules(), "qubix_kernels.onnx.cuda"} == {f"qubix_kernels.{name}.cuda" for name in have}


def test_missing_compiler_parts_are_a_failure() -> None:
    code = (
        f"import sys; sys.modules['cuda.core'] = None; from qubix_kernels import sass; sass.main(['9.0', '{PLANTED}'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert "cuda.core" in done.stderr
    with pytest.raises(RuntimeError, match="no_such_module"):
        sass.report("9.0", "no_such_module")
