# SPDX-License-Identifier: Apache-2.0
"""Describes one model at a time: the file into a private folder, a forked worker in the box that reads and tries it.

It runs beside the checks of the same process, and takes nobody's turn: paid work is never behind a free question.
"""

import asyncio
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qubix_coordinator.artifacts.store import ArtifactStore
from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import QubixError, Unavailable
from qubix_coordinator.jobs.boxed import NotCarriedOut, WorkerEnded, fetch, in_worker
from qubix_coordinator.models import rules, service
from qubix_coordinator.models.rules import Outcome
from qubix_coordinator.models.service import Question
from qubix_kernels.box.rules import Limits
from qubix_kernels.onnx.frames import DescribeDone, DescribeTask
from qubix_kernels.tasks import Event, TaskFailed
from qubix_kernels.zygote import Zygote
from qubix_protocol.errors import Malformed

log = logging.getLogger(__name__)
MEMORY_BASE_BYTES: Final = 2 * 1024**3
MEMORY_FACTOR: Final = 6
"""Of the model and its inputs: as they came, parsed twice, planned, packed."""
DISK_BYTES: Final = 256 * 1024**2
EXTRA_S: Final = 5.0
"""The watchdog's deadline comes first, since it says why; ours is for a worker that it does not end."""


class Describer:
    """Data lies in folders of their own within `folder`, which the zygote must show."""

    def __init__(self, db: Database, store: ArtifactStore, zygote: Zygote, folder: Path, *, deadline_s: float) -> None:
        self._db, self._store, self._zygote, self._folder = db, store, zygote, folder
        self._deadline_s = deadline_s

    async def one(self, name: str, now_ms: Callable[[], int]) -> bool:
        """Describes one model, if one waits. `name` is who claims it. Raises `ZygoteDied`."""
        question = await self._db.run(lambda tx: service.claim(tx, name, self._deadline_s, now_ms()))
        if question is None:
            return False
        found = await self.describe(question)
        recorded = await self._record(question, name, found)
        refusal = found.answer.refusal
        log.info(
            "verifier.described",
            extra={
                "model": str(question.id),
                "state": str(found.state),
                "reason": refusal.code if refusal else "",
                "took_ms": found.took_ms,
                "recorded": recorded,
            },
        )
        return True

    async def describe(self, question: Question) -> Outcome:
        """Never raises for what a model does: that is its answer."""
        memory_bytes = MEMORY_BASE_BYTES + MEMORY_FACTOR * _data_bytes(question)
        try:
            with tempfile.TemporaryDirectory(prefix="model-", dir=self._folder) as folder:
                async with asyncio.timeout(rules.SLACK_MS / 1000 - 2 * EXTRA_S):
                    task = await self._prepare(question, Path(folder))
                limits = Limits(
                    memory_bytes=memory_bytes,
                    cpu_s=int(self._deadline_s) + 1,
                    wall_s=self._deadline_s,
                    disk_bytes=DISK_BYTES,
                )
                async with asyncio.timeout(self._deadline_s + EXTRA_S):
                    event = await in_worker(self._zygote, task, Path(folder), limits)
        except WorkerEnded as end:
            return rules.unfinished(end.cause, end.status, self._deadline_s, memory_bytes)
        except TimeoutError:
            return rules.failed("the model could not be fetched and tried in time")
        except (NotCarriedOut, QubixError, Malformed, OSError) as problem:
            return rules.failed(str(problem))
        return outcome_of(event, question, task, memory_bytes)

    async def _prepare(self, question: Question, folder: Path) -> DescribeTask:
        model = await fetch(self._store, question.account_id, bytes.fromhex(question.body.digest), folder / "model.npy")
        paths: dict[str, str] = {}
        for number, (name, artifact) in enumerate(question.data.items()):
            if rules.read_whole(artifact.size_bytes):
                path = folder / f"input-{number}.npy"
                paths[name] = str(await fetch(self._store, question.account_id, artifact.digest, path))
        forms = {name: one.meta for name, one in question.body.inputs.items() if name not in paths}
        return DescribeTask(model=str(model), inputs=paths, forms=forms, whole=question.body.whole)

    async def _record(self, question: Question, name: str, found: Outcome) -> bool:
        while True:
            try:
                return await self._db.run(lambda tx: service.record(tx, question, name, found))
            except Unavailable:
                await self._db.until_back()


def _data_bytes(question: Question) -> int:
    return question.model_bytes + sum(
        one.size_bytes for one in question.data.values() if rules.read_whole(one.size_bytes)
    )


def outcome_of(event: Event, question: Question, task: DescribeTask, memory_bytes: int) -> Outcome:
    if isinstance(event, DescribeDone):
        return rules.outcome(event, question.body, zeros=bool(task.forms) or not task.inputs)
    if isinstance(event, TaskFailed) and event.code == "out_of_memory":
        return rules.out_of_memory(memory_bytes)
    if isinstance(event, TaskFailed) and event.code == "kernel_error":
        return rules.broken(event.detail)
    return rules.failed(event.detail if isinstance(event, TaskFailed) else "the worker answered something else")
