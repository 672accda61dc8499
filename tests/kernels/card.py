# SPDX-License-Identifier: Apache-2.0
"""What the CUDA back ends are tried on: a real card where there is one, or else Numba's simulator.

`QUBIX_TEST_CUDA=card` fails where there is none, `QUBIX_TEST_CUDA=simulator` leaves a card alone. What needs a card is
in tests/card.

`python -m tests.kernels.card` runs the suite's small jobs on the card in this very process, for tools that watch one,
such as compute-sanitizer.
"""

import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qubix_kernels import get, names
from qubix_kernels.kernel import metas_of
from tests.kernels.conformance import subjects
from tests.kernels.simulator import ROOT, Card, Simulator

WISH = "QUBIX_TEST_CUDA"
_ASK = "from qubix_kernels.cuda import cuda; print('yes' if cuda.is_available() else cuda.cuda_error())"
_ASK_S = 120
_NODES = ("/dev/nvidiactl", "/dev/dxg")
"""Of a driver, or of WSL's: without either nobody need be asked."""


@functools.cache
def missing() -> str:
    """Why there is no card to test on; "" where there is one. Asked in a process of its own: none here opens a card."""
    wish = os.environ.get(WISH, "auto")
    if wish not in ("auto", "card", "simulator"):
        raise ValueError(f"{WISH} is {wish!r}: choose auto, card or simulator")
    if wish == "simulator":
        return f"{WISH}=simulator leaves cards alone"
    if wish == "auto" and not any(Path(node).exists() for node in _NODES):
        return "no NVIDIA driver is loaded here"
    done = subprocess.run(
        [sys.executable, "-c", _ASK],
        cwd=ROOT,
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=_ASK_S,
    )
    said = " ".join((done.stdout if done.returncode == 0 else done.stderr).split())
    if said == "yes":
        return ""
    if wish == "card":
        raise LookupError(f"{WISH}=card, but there is none: {said}")
    return f"no NVIDIA card is here: {said}"[:500]


def on_cuda() -> Simulator:
    """A child that runs CUDA back ends on whatever there is."""
    return Simulator() if missing() else Card()


def main(chosen: Sequence[str]) -> None:
    """Each edge of each kernel's jobs, run and checked; says which are wrong."""
    problems = 0
    ours = [name for name in names() if "cuda" in get(name).spec.backends and subjects()[name].simulated]
    for name in chosen or ours:
        for edge in subjects()[name].edges:
            job = edge()
            job.kernel.warm_up("cuda", metas_of(job.inputs), job.params)
            outputs = job.kernel.run("cuda", job.inputs, job.params)
            wrong = subjects()[name].wrong(job, outputs) or job.kernel.verify(
                job.inputs, job.params, outputs, np.random.default_rng(0)
            )
            if wrong and not getattr(wrong, "accepted", False):
                problems += 1
                print(f"{name}: {wrong}")
        print(f"{name}: {len(subjects()[name].edges)} jobs")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
