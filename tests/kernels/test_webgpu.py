# SPDX-License-Identifier: Apache-2.0
"""The WebGPU back ends beyond the conformance suite: what they refuse, how they divide work, and their shaders."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qubix_kernels
from qubix_kernels import get, names
from qubix_kernels.kernel import BadInput, metas_of
from qubix_kernels.mandelbrot.window import Window
from qubix_kernels.montecarlo_option import philox, polynomials
from qubix_kernels.montecarlo_option.model import Option
from tests.kernels import webgpu as driver
from tests.kernels.conformance import mandelbrot, matmul, montecarlo_option
from tests.kernels.conformance.world import Job, Outputs

NAMES = [name for name in names() if "webgpu" in get(name).spec.backends]


def shader(name: str) -> str:
    return (Path(qubix_kernels.__path__[0]) / name / "shader.wgsl").read_text()


def run(job: Job) -> Outputs:
    driver.need_adapter()
    return job.kernel.run("webgpu", job.inputs, job.params)


def test_three_kernels_have_one() -> None:
    assert NAMES == ["mandelbrot", "matmul", "montecarlo_option"]


@pytest.mark.parametrize("name", NAMES)
def test_bindings_are_told_at_the_top_in_the_order_that_tabs_and_nodes_rely_on(name: str) -> None:
    text = shader(name)
    head, body = text[: text.index("struct Params")], text[text.index("struct Params") :]
    told = re.findall(r"^//   (\d)  (uniform|storage, read_write|storage, read)\b", head, re.MULTILINE)
    bound = re.findall(r"@binding\((\d)\) var<(uniform|storage, read_write|storage, read)>", body)
    assert told == bound
    assert [int(number) for number, _ in bound] == list(range(len(bound)))
    entries = re.findall(r"^fn (\w+)\(@builtin", body, re.MULTILINE)
    assert entries
    assert all(f"`{entry}`" in head for entry in entries)


@pytest.mark.parametrize("table", ["COSINE", "SINE"])
def test_the_shader_has_the_polynomials_of_the_other_back_ends(table: str) -> None:
    body = shader("montecarlo_option").replace("- ", "-").replace("+ ", "")
    said = {np.float32(number) for number in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", body)}
    assert {number for number in getattr(polynomials, table) if number != 1} <= said


def test_the_words_are_philox() -> None:
    text = shader("montecarlo_option")
    for pair in (philox.MULTIPLIERS, philox.KEY_STEPS):
        assert f"vec2u(0x{pair[0]:X}u, 0x{pair[1]:X}u)" in text
    assert f"ROUNDS = {philox.ROUNDS};" in text


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**53 - 1])
@pytest.mark.parametrize("first", [0, 2**31, 2**32 - 3])
def test_every_bit_of_the_words_counts(seed: int, first: int) -> None:
    """Without spread each path pays alike, so the sums say nothing of words; with a huge one they say all."""
    job = montecarlo_option.job(3, 129, seed=seed, first_lane=first, volatility=2.0, maturity=1.0, strike=1e-3)
    exact = montecarlo_option.payoffs(job).sum(axis=1)
    np.testing.assert_allclose(run(job)["sums"], exact, rtol=2e-6)


REFUSED: dict[str, tuple[Any, str]] = {
    "float64": (lambda: matmul.job(3, 4, 5, dtype="float64"), "float64"),
    "NaN": (lambda: Job(get("matmul"), {"a": np.full((2, 2), np.nan, "f4"), "b": np.ones((2, 2), "f4")}, {}), "NaN"),
    "overflow": (lambda: Job(get("matmul"), {x: np.full((2, 2), 1e19, "f4") for x in "ab"}, {}), "overflow"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_it_cannot_do_is_refused_with_the_reason(case: str) -> None:
    make, said = REFUSED[case]
    with pytest.raises(BadInput, match=said):
        run(make())


def test_matching_never_sends_float64_there() -> None:
    kernel = get("matmul")
    wide, narrow = (metas_of(matmul.job(3, 4, 5, dtype=dtype).inputs) for dtype in ("float64", "float16"))
    assert kernel.runs_on(wide, {}) == ("cpu", "cuda")
    assert kernel.runs_on(narrow, {}) == ("cpu", "cuda", "webgpu")


def small_device(binding_bytes: int) -> Any:
    from qubix_kernels.webgpu import Device, adapter

    driver.need_adapter()
    return Device(adapter(), binding_bytes)


def test_matrices_in_panels_and_long_sums_in_steps() -> None:
    """A device that binds 64 KiB at a time, and whose dispatches may be next to nothing."""
    from qubix_kernels.matmul import webgpu
    from qubix_kernels.webgpu import Pace

    gpu = small_device(64 * 1024)
    gpu.paces[webgpu.SHADER] = pace = Pace(first=1.0)
    pace.learn(1.0, 1e9)
    job = matmul.job(70, 1500, 23)
    outputs = {"c": webgpu.product(job.inputs["a"], job.inputs["b"], gpu)}
    assert matmul.wrong(job, outputs) == ""
    assert job.verdict(outputs).accepted


@pytest.mark.parametrize("pixels", [1, 100, 1000])
def test_an_image_in_blocks_and_panels_is_the_same_image(pixels: int) -> None:
    from qubix_kernels.mandelbrot import webgpu
    from qubix_kernels.webgpu import TARGET_S

    job = mandelbrot.job(83, 45)
    gpu = small_device(4 * 83 * 20)
    gpu.speeds[webgpu.SHADER] = pixels * 60 / TARGET_S
    np.testing.assert_array_equal(webgpu.image(Window.of(job.params), gpu), run(job)["iterations"])


def test_lanes_in_batches_are_the_same_lanes() -> None:
    from qubix_kernels.montecarlo_option import webgpu
    from qubix_kernels.webgpu import Pace

    job = montecarlo_option.job(50, 700)
    gpu = small_device(4096)
    gpu.paces[webgpu.SHADER] = Pace(first=2000.0)
    words = (int(job.params[name]) for name in ("first_lane", "lanes", "paths_per_lane", "seed"))
    found = dict(zip(("sums", "squares"), webgpu.simulate(Option.of(job.params), *words, gpu), strict=True))
    for name, lanes in run(job).items():
        np.testing.assert_array_equal(lanes, found[name])


ROUNDS = """
@group(0) @binding(0) var<uniform> params: vec4u;
@group(0) @binding(1) var<storage, read_write> words: array<u32>;

@compute @workgroup_size(1)
fn rounds() {
    var word = 1u;
    for (var i = 0u; i < params.x; i++) {
        word = word * 1664525u + 1013904223u;
    }
    words[0] = word;
}
"""


def test_a_loop_may_be_as_long_as_the_kernels_make_it() -> None:
    """Mesa's driver ends loops at 65,535 rounds without a word: the longest that it runs is `LOOP_MAX`."""
    from qubix_kernels.webgpu import LOOP_MAX, Shader

    class Planted(Shader):
        source = ROUNDS

    word = 1
    for _ in range(LOOP_MAX):
        word = (word * 1664525 + 1013904223) % 2**32
    gpu = small_device(4096)
    words = gpu.empty(4)
    bound = gpu.bind(Planted(kernel="", entries=("rounds",), storage=("write",)), 16, [words])
    bound.run(np.array([LOOP_MAX, 0, 0, 0], np.uint32).tobytes(), ("rounds", (1, 1)))
    assert gpu.fetch(words, np.uint32).tolist() == [word]


@pytest.mark.parametrize("name", ["max_iterations", "paths_per_lane"])
def test_no_job_asks_for_a_longer_one(name: str) -> None:
    from qubix_kernels.webgpu import LOOP_MAX

    bounds = {param.name: param.high for kernel in NAMES for param in get(kernel).spec.params}
    assert (bounds[name] or 0) <= LOOP_MAX


def test_the_longest_lane_is_whole() -> None:
    job = montecarlo_option.job(3, 2**14)
    outputs = run(job)
    assert montecarlo_option.wrong(job, outputs) == ""
    assert job.verdict(outputs).accepted


def test_what_wgpu_raises_comes_out_in_words_of_ours() -> None:
    import wgpu

    from qubix_kernels.webgpu import DeviceFailed, working

    raised: list[tuple[Exception, type[Exception], str]] = [
        (wgpu.GPUOutOfMemoryError("not\nenough"), MemoryError, "no room for this: not enough"),
        (wgpu.GPUInternalError("it hangs"), DeviceFailed, "the device failed: it hangs"),
    ]
    for error, kind, words in raised:
        with pytest.raises(kind, match=words), working(small_device(4096)):
            raise error


def test_a_shader_that_a_driver_refuses_is_the_device_s_failure() -> None:
    from qubix_kernels.webgpu import DeviceFailed, Shader, working

    broken = Shader(kernel="matmul", entries=("absent",), storage=("read", "read", "write"))
    gpu = small_device(4096)
    bound = gpu.bind(broken, 32, [gpu.empty(64) for _ in range(3)])
    with pytest.raises(DeviceFailed, match="absent"), working(gpu):
        bound.run(bytes(32), ("absent", (1, 1)))


def test_a_dispatch_becomes_what_the_last_one_said() -> None:
    from qubix_kernels.webgpu import TARGET_S, Pace

    pace = Pace(first=100.0)
    pace.learn(100.0, TARGET_S / 1000)
    assert pace.work == 400
    pace.learn(400.0, TARGET_S * 2)
    assert pace.work == 200
    pace.learn(200.0, TARGET_S * 1e6)
    assert pace.work == 100
