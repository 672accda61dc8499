# SPDX-License-Identifier: Apache-2.0
"""The Mandelbrot set: plain and fused float32, and pictures that were made more cheaply."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qubix_kernels.mandelbrot.window import Window, imaginary, real
from tests.kernels.conformance.cheats import of_other_job
from tests.kernels.conformance.world import Array, Job, Outputs, Rng, Subject

F32 = np.float32
Step = Callable[[Array, Array, Array, Array], tuple[Array, Array, Array]]


def job(width: int, height: int, **changes: Any) -> Job:
    return Job.of(
        "mandelbrot", **{"width": width, "height": height, "pixel": 3 / width, "max_iterations": 60} | changes
    )


def fused(a: Array, b: Array, c: Array) -> Array:
    """a b + c rounded once (twice in very rare cases), as one instruction of a GPU does it."""
    return (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(F32)


def plain(zr: Array, zi: Array, cr: Array, ci: Array) -> tuple[Array, Array, Array]:
    zr, zi = zr * zr - zi * zi + cr, 2 * zr * zi + ci
    return zr, zi, zr * zr + zi * zi


def one_fused(zr: Array, zi: Array, cr: Array, ci: Array) -> tuple[Array, Array, Array]:
    zr, zi = fused(zr, zr, -(zi * zi)) + cr, fused(zr + zr, zi, ci)
    return zr, zi, fused(zr, zr, zi * zi)


def all_fused(zr: Array, zi: Array, cr: Array, ci: Array) -> tuple[Array, Array, Array]:
    zr, zi = fused(-zi, zi, fused(zr, zr, cr)), fused(zr + zr, zi, ci)
    return zr, zi, fused(zi, zi, zr * zr)


def factored(zr: Array, zi: Array, cr: Array, ci: Array) -> tuple[Array, Array, Array]:
    zr, zi = (zr + zi) * (zr - zi) + cr, zr * zi + zr * zi + ci
    return zr, zi, zr * zr + zi * zi


STEPS: list[Step] = [one_fused, all_fused, factored]


def counts(step: Step, cr: Array, ci: Array, most: int, far: float = 4.0) -> Array:
    found, left, zr, zi = np.full(len(cr), most, np.int32), np.arange(len(cr)), cr, ci
    with np.errstate(over="ignore"):
        size = zr * zr + zi * zi
        for done in range(most):
            out = ~(size <= far)
            found[left[out]] = done
            left, zr, zi = left[~out], zr[~out], zi[~out]
            zr, zi, size = step(zr, zi, cr[left], ci[left])
    return found


def pixels(window: Window) -> tuple[Array, Array]:
    x, y = np.meshgrid(real(window), imaginary(window))
    return x.ravel(), y.ravel()


def made(asked: Job, step: Step, dtype: Any = F32, far: float = 4.0, most: int = 0) -> Outputs:
    window = Window.of(asked.params)
    x, y = (axis.astype(dtype) for axis in pixels(window))
    found = counts(step, x, y, most or window.max_iterations, far)
    return {"iterations": found.reshape(window.height, window.width)}


def wrong(asked: Job, outputs: Outputs) -> str:
    """Away from the boundary float64 gives the same counts; `discs` are tested by themselves."""
    exact = made(asked, plain, np.float64)["iterations"]
    different = np.count_nonzero(exact != outputs["iterations"])
    return (
        f"{different} of {exact.size} differ" if different > (1 if 10 < exact.size < 33 else 0.03 * exact.size) else ""
    )


def random(rng: Rng) -> Job:
    """A window around a place on the boundary: z = e^{iθ}/2 on the main body, moved a little, at any depth."""
    angle, pixel = rng.uniform(0, 2 * np.pi), 10 ** rng.uniform(-5.5, -1.5)
    turn = np.exp(1j * angle)
    centre = turn / 2 - turn * turn / 4 + 0.02 * (rng.standard_normal() + 1j * rng.standard_normal())
    width, height = (int(size) for size in rng.integers(1, 33, 2))
    place = {"left": float(centre.real - width / 2 * pixel), "top": float(centre.imag + height / 2 * pixel)}
    return job(width, height, pixel=float(pixel), max_iterations=int(10 ** rng.uniform(0.5, 2.6)), **place)


def trial() -> Job:
    return job(160, 128, pixel=3 / 160, max_iterations=200)


def fewer_iterations(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return {"iterations": np.minimum(outputs["iterations"], 100)}


def fewer_iterations_hidden(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    """What is not out after a tenth of the iterations is said to be in for ever."""
    found = outputs["iterations"]
    return {"iterations": np.where(found >= 20, 200, found).astype(np.int32)}


def in_half(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return made(asked, plain, np.float16)


def nearer(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return made(asked, plain, far=3.0)


def every_other_row(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    outputs["iterations"][1::2] = outputs["iterations"][::2]
    return outputs


def every_other_column(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    outputs["iterations"][:, 1::2] = outputs["iterations"][:, ::2]
    return outputs


def half_resolution(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return {"iterations": outputs["iterations"][::2, ::2].repeat(2, axis=0).repeat(2, axis=1)}


def one_more(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return {"iterations": np.minimum(outputs["iterations"] + 1, 200)}


def all_in(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return {"iterations": np.full_like(outputs["iterations"], 200)}


def a_pixel_aside(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    outputs["iterations"][:, 1:] = outputs["iterations"][:, :-1].copy()
    return outputs


def one_row_of_neighbour(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    outputs["iterations"][2] = outputs["iterations"][1]
    return outputs


SUBJECT = Subject(
    edges=[
        lambda: job(1, 1),
        lambda: job(13, 7),
        lambda: job(17, 3, first_row=5),
        lambda: job(7, 5, left=-0.75, top=0.1, pixel=1e-6, max_iterations=40),
        lambda: job(9, 5, left=-4.0, top=4.0, pixel=0.9),
    ],
    random=random,
    wrong=wrong,
    elsewhere=[lambda asked, step=step: made(asked, step) for step in STEPS],  # type: ignore[misc]
    trial=trial,
    complete=lambda: job(80, 4, max_iterations=200, top=0.3, left=-2.0, pixel=0.04),
    cheats={
        "fewer iterations": fewer_iterations,
        "fewer iterations, said to be in": fewer_iterations_hidden,
        "in float16": in_half,
        "an escape radius of 1.7": nearer,
        "every other row copied": every_other_row,
        "every other column copied": every_other_column,
        "half the resolution": half_resolution,
        "one iteration more": one_more,
        "all in": all_in,
        "a pixel aside": a_pixel_aside,
        "another window": of_other_job(lambda: job(160, 128, pixel=3 / 160, max_iterations=200, left=-2.26)),
        "the next rows": of_other_job(lambda: job(160, 128, pixel=3 / 160, max_iterations=200, first_row=1)),
    },
    small_cheats={"one row of its neighbour": one_row_of_neighbour},
    exact=frozenset({"cpu", "cuda", "webgpu"}),
    not_harmful={
        "stored as float16": "counts are whole numbers below 2,048",
        "one NaN": "counts are whole numbers",
        "one infinity": "counts are whole numbers",
    },
)
