# SPDX-License-Identifier: Apache-2.0
"""Which CUDA parts are installed beside the node, by their package's own record: nothing of them is imported here."""

from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("cuda-toolkit", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")
"""The first is what numba-cuda's extras ask for; the others are the compiler by itself."""


def cuda_major() -> int | None:
    """12 or 13; None when there are none."""
    for package in _PACKAGES:
        try:
            return int(version(package).partition(".")[0])
        except PackageNotFoundError:
            continue
    return None
