# SPDX-License-Identifier: Apache-2.0
"""What every back end refuses in the same words."""

import numpy as np

from qubix_kernels.kernel import BadInput
from qubix_protocol.arrays import Array


def check_finite(name: str, array: Array) -> None:
    if not np.isfinite(array).all():
        raise BadInput(f"{name} contains NaN or infinity")
