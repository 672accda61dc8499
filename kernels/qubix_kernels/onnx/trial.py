# SPDX-License-Identifier: Apache-2.0
"""One unit run with its operations counted: the consumer's machine and the worker both make this trial.

The graph is run as it was exported, on the CPU, without optimisation: so what is counted is the same everywhere.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from qubix_kernels.kernel import BadInput
from qubix_kernels.onnx import work
from qubix_kernels.onnx.session import CPU, Session, shapes_of
from qubix_protocol.arrays import Array

_PROFILE_BYTES_MAX: Final = 64 * 1024**2
_SUFFIX: Final = "_kernel_time"


@dataclass(frozen=True)
class Trial:
    """`outputs` by the model's own names."""

    outputs: Mapping[str, Array]
    work: work.Work


def trial(data: bytes, feed: Mapping[str, Array]) -> Trial:
    """Raises `BadInput` when the model does not run. Writes one file to a temporary folder, and removes it."""
    with tempfile.TemporaryDirectory(prefix="qubix-trial-") as folder:
        session = Session(data, CPU, {}, plain=True, profile=os.path.join(folder, "profile"))
        outputs = session.run(feed)
        path = session.profile()
        if os.path.getsize(path) > _PROFILE_BYTES_MAX:
            raise BadInput("the model runs too many operations for one unit; divide the work into smaller units")
        with open(path, "rb") as file:
            ran = work.total(_ops(json.load(file)))
    return Trial(outputs, ran)


def _ops(events: list[dict[str, Any]]) -> Iterator[work.Op]:
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            said = event["args"]
            size = sum(int(said.get(key, 0)) for key in ("activation_size", "parameter_size", "output_size"))
            took, gave = (shapes_of(said.get(key, ())) for key in ("input_type_shape", "output_type_shape"))
            yield work.Op(said["op_name"], took, gave, size)
