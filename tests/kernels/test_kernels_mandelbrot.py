# SPDX-License-Identifier: Apache-2.0
"""The Mandelbrot set: what is known of it exactly, and discs that no float32 orbit leaves, whatever is fused."""

from typing import Any

import numpy as np
import pytest

from qubix_kernels import get
from qubix_kernels.mandelbrot.discs import possible_iterations
from qubix_kernels.mandelbrot.orbits import iterations
from qubix_kernels.mandelbrot.window import Window, imaginary, mean_iterations
from tests.kernels.conformance.mandelbrot import STEPS, counts, pixels

KERNEL = get("mandelbrot")


def params(**changes: object) -> dict[str, Any]:
    return KERNEL.normalise({"width": 64, "height": 48, "pixel": 3 / 64, "max_iterations": 300} | changes)


WINDOWS = {
    "whole": params(),
    "seahorses": params(left=-0.77, top=0.12, pixel=0.04 / 64, max_iterations=1000),
    "elephants": params(left=0.25, top=0.02, pixel=0.04 / 64, max_iterations=1000),
    "antenna": params(left=-1.79, top=0.02, pixel=0.05 / 64, max_iterations=500),
    "cusp": params(left=0.25, top=1e-4, pixel=5e-6, max_iterations=2000),
    "four steps of float32": params(left=-0.7436, top=0.1319, pixel=2.5e-7, max_iterations=500),
    "a point that is never attracted": params(left=-0.0001, top=1.0001, pixel=2e-6),
    "nothing inside": params(left=1.0, top=1.0, pixel=0.01),
    "nothing but inside": params(left=-0.2, top=0.1, pixel=0.002),
}


def test_counts_that_are_known() -> None:
    c = np.array([0, -2, -1, 0.25, 1j, 2, 2.5, 1, 0.26], np.complex64)
    found = iterations(c.real.copy(), c.imag.copy(), 500)
    assert list(found[:8]) == [500, 500, 500, 500, 500, 1, 0, 2]
    assert 25 < found[8] < 35
    assert list(iterations(c.real.copy(), c.imag.copy(), 1)) == [1, 1, 1, 1, 1, 1, 0, 1, 1]


@pytest.mark.parametrize("name", WINDOWS)
def test_no_arithmetic_leaves_the_discs_and_all_of_it_is_accepted(name: str) -> None:
    window = Window.of(WINDOWS[name])
    assert KERNEL.check({}, WINDOWS[name]) == ()
    cr, ci = pixels(window)
    fewest, most = possible_iterations(cr, ci, window.max_iterations)
    plain = iterations(cr, ci, window.max_iterations)
    wide = iterations(cr.astype(np.float64), ci.astype(np.float64), window.max_iterations)
    for found in (plain, wide, *(counts(step, cr, ci, window.max_iterations) for step in STEPS)):
        assert np.all((fewest <= found) & (found <= most))
        outputs = {"iterations": found.reshape(window.height, window.width)}
        for seed in range(3):
            verdict = KERNEL.verify({}, WINDOWS[name], outputs, np.random.default_rng(seed))
            assert verdict.accepted, verdict


def test_tolerance_is_only_at_the_boundary() -> None:
    cr, ci = pixels(Window.of(WINDOWS["whole"]))
    fewest, most = possible_iterations(cr, ci, 300)
    assert np.count_nonzero(fewest != most) < 0.03 * cr.size
    for name in ("nothing inside", "nothing but inside"):
        fewest, most = possible_iterations(*pixels(Window.of(WINDOWS[name])), 300)
        np.testing.assert_array_equal(fewest, most)


def test_a_chunk_stands_for_the_same_pixels_as_the_whole() -> None:
    whole = params(left=-0.7436431234567, top=0.131825963, pixel=1.7e-6)
    all_rows = imaginary(Window.of(whole))
    for start, stop in ((0, 1), (1, 13), (13, 47), (47, 48)):
        _, part = KERNEL.subproblem({}, whole, start, stop)
        np.testing.assert_array_equal(imaginary(Window.of(part)), all_rows[start:stop])
        _, again = KERNEL.subproblem({}, part, 0, 1)
        np.testing.assert_array_equal(imaginary(Window.of(again)), all_rows[start : start + 1])


@pytest.mark.parametrize("name", WINDOWS)
def test_the_forecast_is_near_the_work_and_rather_more(name: str) -> None:
    window = Window.of(WINDOWS[name])
    work = iterations(*pixels(window), window.max_iterations).mean() + 1
    assert 0.7 * work <= mean_iterations(window) + 1 <= 3 * work


def test_guesses_for_uncertain_pixels_are_told_by_the_steady_ones() -> None:
    """Where nearly everything is uncertain, the discs alone would let a liar claim that nothing ever gets out."""
    asked = params(left=-0.7436, top=0.1319, pixel=2.5e-7, width=200, height=200, max_iterations=1000)
    window = Window.of(asked)
    _, most = possible_iterations(*pixels(window), 1000)
    verdict = KERNEL.verify({}, asked, {"iterations": most.reshape(200, 200)}, np.random.default_rng(0))
    assert (verdict.accepted, verdict.reason) == (False, "uncertain")
