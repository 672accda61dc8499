# SPDX-License-Identifier: Apache-2.0
"""The Mandelbrot set: iterations until each pixel of a window escapes. notes.md has the reasoning behind the check."""

from typing import Final

import numpy as np

from qubix_kernels.kernel import (
    Arrays,
    ArraySpec,
    Cost,
    Kernel,
    KernelSpec,
    Metas,
    Params,
    ParamSpec,
    ParamValue,
    Problem,
    Verdict,
    metas_of,
    no_backend,
)
from qubix_kernels.mandelbrot.verify import PIXELS_IN_ROW, rows_sampled, verify
from qubix_kernels.mandelbrot.window import Window, mean_iterations
from qubix_protocol.arrays import Array, ArrayMeta

FLOPS: Final = 8.0
"""Of one iteration; its check takes about eight times as long, with a disc around it, in float64."""
_CHECK_FLOPS: Final = 8 * FLOPS
_WORKSPACE_BYTES: Final = 16 * 1024 * 1024
_COORDINATE_MAX: Final = 8.0
_PIXEL_ULPS: Final = 4
_LARGE: Final = 2048

SPEC: Final = KernelSpec(
    name="mandelbrot",
    version=1,
    title="Mandelbrot set",
    doc="For each pixel's centre c, how many of the first max_iterations values of z → z² + c from z = c come before "
    "the first with |z| > 2, in float32. A unit is a row. Near the set's boundary back ends may differ.",
    params=(
        ParamSpec(name="width", kind="int", low=1, high=2**16, doc="columns"),
        ParamSpec(name="height", kind="int", low=1, high=2**16, doc="rows to compute"),
        ParamSpec(name="left", kind="float", default=-2.25, low=-4, high=4, doc="real part of the left edge"),
        ParamSpec(name="top", kind="float", default=1.5, low=-4, high=4, doc="imaginary part of the top edge"),
        ParamSpec(name="pixel", kind="float", default=0.003, low=1e-9, high=8, doc="side of a pixel"),
        ParamSpec(name="max_iterations", kind="int", default=1000, low=1, high=65_535, doc="when a pixel is given up"),
        ParamSpec(name="first_row", kind="int", default=0, low=0, high=2**20, doc="rows to leave out at the top"),
    ),
    inputs=(),
    outputs=(
        ArraySpec(name="iterations", dims=("height", "width"), dtypes=("int32",), doc="0 to max_iterations: never out"),
    ),
    backends=("cpu", "cuda", "webgpu"),
)


class Mandelbrot(Kernel):
    spec = SPEC

    def run(self, backend: str, inputs: Arrays, params: Params) -> dict[str, Array]:
        if backend == "cpu":
            from qubix_kernels.mandelbrot.cpu import image
        elif backend == "cuda":
            from qubix_kernels.mandelbrot.cuda import image
        elif backend == "webgpu":
            from qubix_kernels.mandelbrot.webgpu import image
        else:
            raise no_backend(SPEC, backend)

        return {"iterations": image(Window.of(params))}

    def warm_up(self, backend: str, metas: Metas, params: Params) -> None:
        if backend == "cuda":
            from qubix_kernels.mandelbrot.cuda import warm_up_all

            warm_up_all()
        elif backend == "webgpu":
            from qubix_kernels.mandelbrot.webgpu import warm_up_all

            warm_up_all()

    def verify(self, inputs: Arrays, params: Params, outputs: Arrays, rng: np.random.Generator) -> Verdict:
        problems = self.check_outputs(metas_of(inputs), params, outputs)
        if problems:
            return Verdict(accepted=False, reason="shape", detail=f"{problems[0].field} {problems[0].problem}")
        return verify(Window.of(params), outputs["iterations"], rng)

    def cost(self, metas: Metas, params: Params, units: int) -> Cost:
        window = Window.of(params)
        pixels = float(units) * window.width
        moved = 4 * pixels
        return Cost(FLOPS * pixels * mean_iterations(window), moved, int(moved) + _WORKSPACE_BYTES)

    def check_cost(self, metas: Metas, params: Params, units: int) -> Cost:
        window = Window.of(params)
        pixels = float(rows_sampled(units) * window.width + PIXELS_IN_ROW * units)
        moved = 4.0 * (units * window.width + 4 * pixels)
        return Cost(_CHECK_FLOPS * pixels * mean_iterations(window), moved, int(2 * moved) + _WORKSPACE_BYTES)

    def output_metas(self, metas: Metas, params: Params) -> dict[str, ArrayMeta]:
        return {"iterations": ArrayMeta("int32", (int(params["height"]), int(params["width"])))}

    def subproblem(self, inputs: Arrays, params: Params, start: int, stop: int) -> tuple[dict[str, Array], Params]:
        return {}, {**params, "first_row": int(params["first_row"]) + start, "height": stop - start}

    def example(self, rng: np.random.Generator, scale: int) -> tuple[dict[str, Array], dict[str, ParamValue]]:
        """The whole set, moved a little; from 2,048 on with many iterations, or a card would be measured by its bus."""
        left, top = -2.25 - rng.uniform(0, 0.01), 1.5 + rng.uniform(0, 0.01)
        size = {"width": scale, "height": scale, "pixel": 3.0 / scale}
        iterations = 256 if scale < _LARGE else 4096
        return {}, self.normalise({"left": float(left), "top": float(top), "max_iterations": iterations, **size})

    def problems_of(self, metas: Metas, params: Params) -> tuple[Problem, ...]:
        window = Window.of(params)
        if window.farthest > _COORDINATE_MAX:
            remedy = f"no coordinate may be over {_COORDINATE_MAX:g}: make the image or its pixels smaller"
            return (Problem("params.pixel", f"is {window.pixel:g}", remedy),)
        least = _PIXEL_ULPS * float(np.spacing(np.float32(window.farthest)))
        if window.pixel < least:
            remedy = f"float32 tells pixels here apart from {least:.2g} on: zoom out"
            return (Problem("params.pixel", f"is {window.pixel:g}", remedy),)
        return ()


KERNEL: Final = Mandelbrot()
