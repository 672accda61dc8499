# SPDX-License-Identifier: Apache-2.0
"""Mesa's software driver stands in for a card: shaders are compiled and run for real, through the same Vulkan."""

import functools

import pytest

INSTALL = (
    "no Vulkan driver is here, not even a software one: run `make setup-test` as root, or install the packages "
    "libvulkan1 and mesa-vulkan-drivers (Debian, Ubuntu) or vulkan-loader and mesa-vulkan-drivers (Fedora)"
)


@functools.cache
def found() -> bool:
    from qubix_kernels.webgpu import adapters

    return bool(adapters())


def need_adapter() -> None:
    """Never skipped: without an adapter nothing would be known of a whole back end."""
    if not found():
        pytest.fail(INSTALL)
