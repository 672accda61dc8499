# SPDX-License-Identifier: Apache-2.0
"""Trials of hardware (trust C6): unannounced, of all devices of a node at once. In the code "challenge" is the first
word of a handshake; this is what the trust rules call a challenge.

    TrialAsk ──▶ TrialReady (each device) ──▶ TrialGo: seed ──▶ TrialFilled (each) ──▶ TrialProve: key ──▶ TrialAnswer

The coordinator takes the time from sealing `TrialGo` to the filling, and from `TrialProve` to the answer.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from qubix_protocol.api import View
from qubix_protocol.messages import Digest, Id, Message, Name, Short, Text
from qubix_protocol.units import DEVICES_MAX

DIGESTS_BYTES_MAX: Final = 64 * 1024
_Size = Annotated[int, Meta(ge=1, le=2**31)]


class TrialShape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`pages` of `rows` × `columns` words of four bytes, each word made of two sums of `depth` products."""

    pages: Annotated[int, Meta(ge=1, le=DIGESTS_BYTES_MAX // 4)]
    rows: _Size
    columns: _Size
    depth: _Size


class TrialPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    device_id: Short
    backend: Name
    shape: TrialShape


class TrialAsk(Message, frozen=True, kw_only=True, tag="trial_ask"):
    """Coordinator → node: make room on all of these devices, and say of each when it is there."""

    trial_id: Id
    parts: Annotated[tuple[TrialPart, ...], Meta(min_length=1, max_length=DEVICES_MAX)]


class TrialReady(Message, frozen=True, kw_only=True, tag="trial_ready"):
    trial_id: Id
    device_id: Short


class TrialGo(Message, frozen=True, kw_only=True, tag="trial_go"):
    """Coordinator → node, once every device is ready: fill the room with what follows from the seed."""

    trial_id: Id
    seed: Digest


class TrialFilled(Message, frozen=True, kw_only=True, tag="trial_filled"):
    trial_id: Id
    device_id: Short


class TrialProve(Message, frozen=True, kw_only=True, tag="trial_prove"):
    """Coordinator → node, once every device is filled: digest what is held, under this key."""

    trial_id: Id
    key: Digest


class TrialAnswer(Message, frozen=True, kw_only=True, tag="trial_answer"):
    """Node → coordinator: 32 bits for each page, big-endian, in their order."""

    trial_id: Id
    device_id: Short
    digests: Annotated[bytes, Meta(max_length=DIGESTS_BYTES_MAX)]


class TrialFailed(Message, frozen=True, kw_only=True, tag="trial_failed"):
    """Node → coordinator: this device cannot. `busy`: a job or a rental came, and goes first."""

    trial_id: Id
    device_id: Short
    reason: Name
    detail: Text = ""


class TrialEnd(Message, frozen=True, kw_only=True, tag="trial_end"):
    """Coordinator → node: it is over; what became of it, and what to do when it failed."""

    trial_id: Id
    verdict: Name
    detail: Text = ""
    remedy: Text = ""


class TrialView(View, frozen=True, kw_only=True):
    """One trial, as this device took part in it. `gflops` is of float32 multiplications and additions."""

    trial_id: Id
    at_ms: int
    verdict: str
    reason: str
    detail: str
    gflops: float
    fill_bytes: int
    fill_ms: int | None = None
    proof_ms: int | None = None


class TrialsView(View, frozen=True, kw_only=True):
    """`GET /offers/{id}/trials`: newest first."""

    listing_id: Id
    trials: tuple[TrialView, ...]
