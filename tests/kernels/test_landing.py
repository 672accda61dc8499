# SPDX-License-Identifier: Apache-2.0
"""Where results land: memory is used again when nobody holds it, and never before."""

import numpy as np
import pytest

from qubix_kernels.landing import Landing

MIB = 1024**2


def place(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_is_used_again_once_its_array_is_gone() -> None:
    landing = Landing()
    first = landing.array((MIB,), np.float32)
    at = place(first)
    del first
    smaller = landing.array((512, 600), np.float64)
    assert place(smaller) == at
    assert (smaller.dtype, smaller.shape, smaller.flags.c_contiguous) == (np.float64, (512, 600), True)


@pytest.mark.parametrize("keep", [lambda array: array[3:7], memoryview, lambda array: array.reshape(-1)[::2].T])
def test_what_somebody_still_sees_is_never_written_to(keep: object) -> None:
    landing = Landing()
    first = landing.array((1024, 1024), np.float32)
    first[:] = 7
    kept = keep(first)  # type: ignore[operator]
    del first
    for _ in range(5):
        landing.array((1024, 1024), np.float32)[:] = 9
    assert np.all(np.asarray(kept) == 7)


def test_two_chunks_take_turns_and_larger_ones_get_room() -> None:
    landing = Landing()
    places = []
    held = landing.array((MIB,), np.uint8)
    for _ in range(6):
        made = landing.array((MIB,), np.uint8)
        places.append(place(made))
        held = made  # the one before is given back
    assert len(set(places)) == 2
    del held, made
    large = landing.array((4 * MIB,), np.uint8)
    assert large.size == 4 * MIB
    assert len(landing._rooms) <= 2


def test_what_is_small_or_huge_is_not_kept() -> None:
    landing = Landing()
    assert landing.array((10,), np.float32).base is None
    assert landing.array((0, 5), np.float32).shape == (0, 5)
    assert landing._rooms == []
