# SPDX-License-Identifier: Apache-2.0
"""Carries out one check: data into a private folder, a seed drawn only then, a forked worker with limits.

The worker stands in the box: it gets files to read and a seed, no database and no environment of ours (trust.md C1,
C3).
"""

import asyncio
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from qubix_coordinator.artifacts.store import ArtifactStore
from qubix_coordinator.errors import QubixError
from qubix_coordinator.jobs.boxed import NotCarriedOut, WorkerEnded, fetch, in_worker
from qubix_coordinator.jobs.verify import Claim, File, Finding
from qubix_kernels import tasks
from qubix_kernels.box.rules import Limits
from qubix_kernels.zygote import Zygote
from qubix_protocol.errors import Malformed
from qubix_protocol.job_receipt import check_seed

MEMORY_BASE_BYTES = 2 * 1024**3
MEMORY_FACTOR = 6
"""Address space for a check beside its data: copies in float64 and what the libraries map."""
CPU_EXTRA_S = 5
DISK_BYTES = 1024**3
WALL_EXTRA_S = 5.0
"""The check's own deadline comes first; the watchdog is for a parent that cannot see to it."""


class Checker:
    """Data lies in folders of their own within `folder`, which the zygote must show."""

    def __init__(self, store: ArtifactStore, zygote: Zygote, folder: Path, *, deadline_s: float) -> None:
        self._store, self._zygote, self._folder, self._deadline_s = store, zygote, folder, deadline_s

    async def check(self, claim: Claim) -> Finding:
        """Never raises for what a result or a kernel does: that is a finding. Raises `ZygoteDied`."""
        seed = b""
        try:
            async with asyncio.timeout(self._deadline_s):
                with tempfile.TemporaryDirectory(prefix="check-", dir=self._folder) as folder:
                    task = await self._prepare(claim, Path(folder))
                    # Only now: every byte that will be checked is committed and here (trust.md C1).
                    seed = os.urandom(32)
                    choices = check_seed(str(claim.attempt_id), claim.head, seed)
                    task = msgspec.structs.replace(task, seed=choices)
                    event = await self._in_worker(task, Path(folder), _data_bytes(claim))
        except TimeoutError:
            return not_carried_out(f"the check took longer than {self._deadline_s:g} s", seed)
        except WorkerEnded:
            return not_carried_out("the check's worker ended without a verdict", seed)
        except (NotCarriedOut, QubixError, Malformed, OSError) as problem:
            return not_carried_out(str(problem), seed)
        return _finding(event, seed, len(claim.outputs))

    async def _prepare(self, claim: Claim, folder: Path) -> tasks.VerifyTask:
        inputs = {}
        for number, (name, file) in enumerate(claim.inputs.items()):
            inputs[name] = str(await self._fetch(claim, file, folder / f"input-{number}.npy"))
        parts = await self._parts(claim, claim.outputs, folder, "part")
        others = await self._parts(claim, claim.others, folder, "other")
        return tasks.VerifyTask(
            kernel=claim.kernel, params=claim.params, inputs=inputs, parts=parts, others=others, seed=bytes(32)
        )

    async def _parts(
        self, claim: Claim, outputs: Sequence[tuple[int, int, File]], folder: Path, name: str
    ) -> tuple[tasks.Part, ...]:
        parts = []
        for number, (start, stop, file) in enumerate(outputs):
            path = await self._fetch(claim, file, folder / f"{name}-{number}.bin")
            parts.append(tasks.Part(start=start, stop=stop, path=str(path)))
        return tuple(parts)

    async def _fetch(self, claim: Claim, file: File, path: Path) -> Path:
        return await fetch(self._store, claim.account_id, file.digest, path)

    async def _in_worker(self, task: tasks.VerifyTask, folder: Path, data_bytes: int) -> tasks.Event:
        limits = Limits(
            memory_bytes=MEMORY_BASE_BYTES + MEMORY_FACTOR * data_bytes,
            cpu_s=int(self._deadline_s) + CPU_EXTRA_S,
            wall_s=self._deadline_s + WALL_EXTRA_S,
            disk_bytes=DISK_BYTES,
        )
        return await in_worker(self._zygote, task, folder, limits)


def _files(claim: Claim) -> Iterator[File]:
    yield from claim.inputs.values()
    yield from (file for _, _, file in (*claim.outputs, *claim.others))


def _data_bytes(claim: Claim) -> int:
    return sum(file.size_bytes for file in _files(claim))


def not_carried_out(why: str, seed: bytes = b"") -> Finding:
    return Finding(
        carried_out=False, accepted=False, reason="not_carried_out", detail=_kept(why), parts=(), seed=seed, check_ms=0
    )


def _kept(text: str) -> str:
    """As the database takes it: words of a worker, or of what it read, may hold anything."""
    return text.replace("\0", "").encode(errors="replace").decode()


def _finding(event: tasks.Event, seed: bytes, parts: int) -> Finding:
    if isinstance(event, tasks.TaskFailed):
        return not_carried_out(f"{event.code}: {event.detail}", seed)
    if not isinstance(event, tasks.VerifyDone) or len(event.parts) != parts:
        return not_carried_out("the check's worker did not answer with a verdict for each part", seed)
    return Finding(
        carried_out=True,
        # A verdict is only as good as its worst part.
        accepted=event.accepted and all(event.parts),
        reason=_kept(event.reason),
        detail=_kept(event.detail),
        parts=event.parts,
        seed=seed,
        check_ms=round(event.check_ms),
    )
