# SPDX-License-Identifier: Apache-2.0
"""The kernels this SDK knows: what they take, how they check it, how their parts are joined."""

from collections.abc import Mapping
from typing import Any

from qubix.orders import Work
from qubix_protocol.arrays import ArrayMeta


def work_of(kernel: str, given: Mapping[str, Any], forms: Mapping[str, ArrayMeta] | None = None) -> Work:
    raise NotImplementedError
