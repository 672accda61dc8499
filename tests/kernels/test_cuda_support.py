# SPDX-License-Identifier: Apache-2.0
"""The door to Numba's CUDA target: what it says without a device, that only workers go through it, that it computes."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.kernels.simulator import ROOT, Simulator

WORKER_LOCKS = "coordinator/qubix_coordinator/workers/locks"


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", *words]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_simulator_computes_what_device_code_says() -> None:
    done = python("-m", "tests.kernels.planted_cuda", NUMBA_ENABLE_CUDASIM="1")
    assert done.stdout == " ".join(str(3 * x + 1) for x in range(70)), done.stderr


def test_without_a_device_the_reason_is_told() -> None:
    """Also where there is a GPU: none of its devices is shown."""
    done = python("-m", "tests.kernels.planted_cuda", CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 1
    assert "qubix_kernels.cuda.NoDevice: no CUDA device can be used: " in done.stderr


@pytest.mark.parametrize("module", ["qubix_kernels.zygote", "qubix_kernels.tasks"])
def test_specs_and_the_zygote_load_neither_numba_nor_wgpu(module: str) -> None:
    code = (
        f"import sys, {module}, qubix_kernels as q; [q.get(name) for name in q.names()]; "
        "print([name for name in sys.modules if name.split('.')[0] in ('numba', 'cuda', 'wgpu')])"
    )
    done = python("-c", code)
    assert done.stdout.strip() == "[]", done.stderr


LOCKS = [path for folder in ("requirements", WORKER_LOCKS) for path in sorted((ROOT / folder).glob("py3.*.txt"))]
WHOLE = [str(path.relative_to(ROOT)) for path in LOCKS if "-cuda" not in path.name]
"""The others name what one CUDA has beside it."""


@pytest.mark.parametrize("lock", WHOLE)
def test_no_lock_has_a_numpy_that_numba_s_cuda_target_cannot_be_imported_with(lock: str) -> None:
    """numba-cuda 0.30.4 asks for `numpy.row_stack`, which NumPy 2.5 took away: Python 3.12 and 3.13 would lock it."""
    pins = dict(re.findall(r"^([a-z-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))
    assert pins.get("numba-cuda") == "0.30.4", "look whether a newer one can be had with NumPy 2.5"
    assert tuple(map(int, pins["numpy"].split(".")[:2])) < (2, 5)


ERRORS = """
import sys
from qubix_kernels import cuda
from numba.cuda.cudadrv.driver import CudaAPIError
from cuda.bindings.driver import CUresult
for code in (CUresult.CUDA_ERROR_OUT_OF_MEMORY, CUresult.CUDA_ERROR_ILLEGAL_ADDRESS):
    try:
        with cuda.device():
            raise CudaAPIError(code, f"Call to cuMemAlloc results in {code.name}")
    except Exception as error:
        print(type(error).__name__, "|", error)
try:
    with cuda.device():
        raise PermissionError(1, "Operation not permitted")
except cuda.DeviceFailed as error:
    print(type(error).__name__, "|", error)
"""


def test_errors_of_the_driver_come_out_in_words_of_ours() -> None:
    done = python("-c", ERRORS)
    memory, failed, parts = done.stdout.splitlines()
    assert memory.startswith("MemoryError | the device has no room for this: ")
    assert failed.startswith("DeviceFailed | the device failed: ")
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in failed
    assert parts.startswith("DeviceFailed | parts of CUDA are not beside QUBIX: ")


RESIDENT = """
import numpy as np
from qubix_kernels.resident import Resident
made = []
resident = Resident(lambda array: made.append(array.sum()) or len(made))
a = np.ones(3); a.flags.writeable = False
b = np.ones(3)
print([resident.get(x) for x in (a, a, b, b, a, a[:2], a[:2])])
"""


def test_only_the_same_read_only_array_stays_on_the_device() -> None:
    """Writable ones are sent each time; a new view is a new array."""
    done = python("-c", RESIDENT)
    assert done.stdout.strip() == "[1, 1, 2, 3, 4, 5, 6]", done.stderr


def test_the_simulator_child_answers_with_the_errors_of_the_back_end() -> None:
    with Simulator() as simulator:
        for _ in range(2):
            with pytest.raises(LookupError, match="nowhere"):
                simulator.run("nowhere", {"x": np.ones(1)}, {"k": 3})
