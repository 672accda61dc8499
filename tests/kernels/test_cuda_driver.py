# SPDX-License-Identifier: Apache-2.0
"""The way to a device that the simulator does not go, up to a driver's door: compile, load, launch with arguments as
the driver takes them, copy back, and what the driver's errors become. The driver is a stub that computes nothing."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from qubix_kernels import get, sass
from qubix_kernels.tasks import ChunkDone, RunDone
from qubix_kernels.zygote import Zygote
from tests.kernels.worker_world import Product, hear_all, say

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "tests" / "support" / "cuda_stub.c"


@dataclass(frozen=True)
class Driver:
    folder: Path

    def run(self, *words: str, **settings: str) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
        """A Python process that finds this driver, and the lines that the driver wrote."""
        log = self.folder / "log"
        log.write_text("")
        found = {"LD_LIBRARY_PATH": str(self.folder), "QUBIX_TEST_CUDA_LOG": str(log)}
        environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=environment | found | settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        return done, [line.split() for line in log.read_text().splitlines()]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    folder = tmp_path_factory.mktemp("driver")
    command = ["cc", "-Wall", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o"]
    subprocess.run([*command, str(folder / "libcuda.so.1"), str(SOURCE)], check=True)
    (folder / "libcuda.so").symlink_to("libcuda.so.1")  # the name that Numba looks for first
    return Driver(folder)


def test_arguments_and_results_pass_as_they_are(driver: Driver) -> None:
    done, log = driver.run("-m", "tests.kernels.planted_cuda")
    assert done.stdout == " ".join(str(3 * x + 1) for x in range(70)), done.stderr
    assert [line[0] for line in log] == ["load", "launch"]
    assert log[1][2:] == ["3", "1", "1", "32", "1", "1"]


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("QUBIX_TEST_CUDA_BYTES", "100", "MemoryError: the device has no room for this: "),
        ("QUBIX_TEST_CUDA_FAULT", "700", "DeviceFailed: the device failed: "),
    ],
)
def test_errors_of_the_driver_have_names_of_ours(driver: Driver, setting: str, value: str, said: str) -> None:
    done, _ = driver.run("-m", "tests.kernels.planted_cuda", **{setting: value})
    assert done.returncode == 1
    assert said in done.stderr


EXAMPLE = """
import os, sys
import numpy as np
from qubix_kernels import get
from qubix_kernels.kernel import metas_of
kernel = get(sys.argv[1])
inputs, params = kernel.example(np.random.default_rng(0), 300)
kernel.warm_up("cuda", metas_of(inputs), params)
with open(os.environ["QUBIX_TEST_CUDA_LOG"], "a") as log:
    log.write("warm\\n")
outputs = kernel.run("cuda", inputs, params)
assert metas_of(outputs) == kernel.output_metas(metas_of(inputs), params)
"""


@pytest.mark.parametrize("module", sass.modules())
def test_a_job_launches_what_was_compiled_before_its_time_was_counted(driver: Driver, module: str) -> None:
    name = module.split(".")[1]
    assert get(name).spec.name == name
    done, log = driver.run("-c", EXAMPLE, name)
    assert done.returncode == 0, done.stderr
    warm = log.index(["warm"])
    assert {line[0] for line in log[:warm]} == {"load"}
    assert {line[0] for line in log[warm + 1 :]} == {"launch"}
    blocks = {tuple((*kernel.block, 1, 1)[:3]) for kernel in import_module(module).DEVICE_KERNELS}
    for _, function, *shape in log[warm + 1 :]:
        assert f"qubix_kernels{len(name)}{name}4cuda" in function
        assert tuple(map(int, shape[3:])) in blocks

    if name == "matmul":  # 300 wide on two multiprocessors: 3 by 3 tiles of 128
        assert log[-1][2:] == ["3", "3", "1", "256", "1", "1"]


def test_a_worker_compiles_loads_and_launches_inside_its_box(driver: Driver, tmp_path: Path) -> None:
    product = Product(tmp_path, rows=12)
    found = {"LD_LIBRARY_PATH": str(driver.folder)}
    zygote = Zygote.start(folders=[tmp_path], environment=found, readable=[driver.folder])
    try:
        worker = zygote.fork(scratch=tmp_path, out=tmp_path)
        with worker.sock:
            say(worker.sock, product.run((0, 6), (6, 12), backend="cuda"))
            *chunks, last = hear_all(worker.sock)
    finally:
        zygote.close()
    assert isinstance(last, RunDone), last
    assert sum(chunk.stop - chunk.start for chunk in chunks if isinstance(chunk, ChunkDone)) == 12
