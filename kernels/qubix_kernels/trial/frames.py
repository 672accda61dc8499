# SPDX-License-Identifier: Apache-2.0
"""What parent and worker say to each other in a trial."""

from typing import Annotated

from msgspec import Meta

from qubix_kernels.frames import Digest, Frame, Milliseconds
from qubix_protocol.trials import DIGESTS_BYTES_MAX, TrialShape


class TrialTask(Frame, frozen=True, kw_only=True, tag="trial"):
    """Make room for these pages on this back end, then wait for the seed."""

    backend: str
    device_id: str
    shape: TrialShape


class TrialSeed(Frame, frozen=True, kw_only=True, tag="trial_seed"):
    seed: Digest


class TrialKey(Frame, frozen=True, kw_only=True, tag="trial_key"):
    key: Digest


class TrialRoom(Frame, frozen=True, kw_only=True, tag="trial_room"):
    """All of it is there."""


class TrialFull(Frame, frozen=True, kw_only=True, tag="trial_full"):
    run_ms: Milliseconds


class TrialDone(Frame, frozen=True, kw_only=True, tag="trial_done"):
    digests: Annotated[bytes, Meta(max_length=DIGESTS_BYTES_MAX)]
    run_ms: Milliseconds
