# SPDX-License-Identifier: Apache-2.0
"""One unit run with its operations counted: the consumer's machine and the worker both make this trial.

The graph is run as it was exported, on the CPU, without optimisation: so what is counted is the same everywhere.
"""

import json
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qubix_kernels.onnx import work
from qubix_kernels.onnx.refusal import Refused
from qubix_kernels.onnx.session import CPU, Session, shapes_of
from qubix_protocol.arrays import Array

_PROFILE_BYTES_MAX: Final = 64 * 1024**2
_SUFFIX: Final = "_kernel_time"


@dataclass(frozen=True)
class Trial:
    """`outputs` by the model's own names."""

    outputs: Mapping[str, Array]
    work: work.Work


def trial(data: bytes, feed: Mapping[str, Array], *, together: bool) -> Trial:
    """`together` as in `work.total`. Raises `Refused` when the model does not run, or MemoryError.

    Writes one file to a temporary folder, and removes it.
    """
    with _profile_prefix() as prefix:
        session = Session(data, CPU, {}, plain=True, profile=prefix)
        outputs = session.run(feed)
        path = session.profile()
        if os.path.getsize(path) > _PROFILE_BYTES_MAX:
            raise Refused(
                "too_much_work",
                "the model runs too many operations for one unit",
                "divide the work into smaller units",
            )
        with open(path, "rb") as file:
            ran = work.total(_ops(json.load(file)), together=together)
    return Trial(outputs, ran)


@contextmanager
def _profile_prefix() -> Iterator[str]:
    """Of a name that nobody can guess, for onnxruntime to write to; a worker may make files, and no folders."""
    folder, name = Path(tempfile.gettempdir()), f"qubix-trial-{secrets.token_hex(16)}"
    try:
        yield str(folder / name)
    finally:
        for left in folder.glob(f"{name}*"):
            left.unlink()


def _ops(events: list[dict[str, Any]]) -> Iterator[work.Op]:
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            said = event["args"]
            size = int(said.get("activation_size", 0)) + int(said.get("output_size", 0))
            took, gave = (shapes_of(said.get(key, ())) for key in ("input_type_shape", "output_type_shape"))
            yield work.Op(said["op_name"], took, gave, size, int(said.get("parameter_size", 0)))
