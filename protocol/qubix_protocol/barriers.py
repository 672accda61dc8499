# SPDX-License-Identifier: Apache-2.0
"""Named places in the life of a job where a test can hold a real process, and stop it there.

A process that was started with `QUBIX_BARRIERS` installs a port, which asks the test at each of them whether to wait;
in every other process `reach` does nothing. Like logging, and for its reasons, there is one port for a process.
"""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final


class Barrier(StrEnum):
    """The step and what has just happened in it. A job has seven: submit, assign, accept, chunk, report, check, settle;
    a rental four; the chain process has its own.

    *Committed* is durable in PostgreSQL, *journalled* durable on the node; nobody has been told of it yet.
    """

    SUBMITTED = "submit.committed"
    """Coordinator: job and hold are stored; the consumer has no answer."""
    ASSIGNED = "assign.committed"
    """Coordinator: the attempt is stored; its command has not left."""
    ACCEPTED = "accept.journalled"
    """Node: the assignment is in the journal; nobody was told."""
    FETCHED = "accept.fetched"
    """Node: all inputs are here; no worker has the task."""
    COMPUTED = "chunk.computed"
    """Node: the worker made a chunk; it is not uploaded. The worker goes on with the next one."""
    LINK_JOURNALLED = "chunk.journalled"
    """Node: the output is stored and its link in the journal; the link was not said."""
    LINK_COMMITTED = "chunk.committed"
    """Coordinator: the link is stored; it was not acknowledged."""
    REPORT_JOURNALLED = "report.journalled"
    """Node: the report is in the journal; it was not said."""
    REPORT_COMMITTED = "report.committed"
    """Coordinator: the report is stored; it was not acknowledged."""
    FOUND = "check.found"
    """Verifier: the check is done; its verdict is not recorded."""
    RECORDED = "check.recorded"
    """Verifier: the verdict is recorded; whether it was applied already is the coordinator's affair."""
    SETTLED = "settle.committed"
    """Coordinator: the attempt is paid; the engine has not gone on."""
    RENTAL_STORED = "rental.committed"
    """Coordinator: rental and hold are stored; neither consumer nor node was told."""
    RENTAL_ASKED = "rental.asked"
    """Coordinator: a rental was looked after, its nonce stored; the engine has not gone on."""
    RENTAL_ANSWERED = "rental.answered"
    """Coordinator: an answered nonce is billed."""
    RENTAL_ENDED = "rental.ended"
    """Coordinator: a rental has ended by itself, paid and returned; the engine has not gone on."""
    DEPOSITS_READ = "deposits.read"
    """Chain: payments were found and proven; nothing of it is stored."""
    DEPOSITS_COMMITTED = "deposits.committed"
    """Chain: payments are credited and the tick cursor has moved."""
    SWEEP_SIGNED = "sweep.committed"
    """Chain: a signed sweep is stored; nobody has seen it."""
    SWEEP_SENT = "sweep.sent"
    """Chain: the network took the sweep; that it did is not stored."""
    SWEEP_ENDED = "sweep.ended"
    """Chain: what became of a sweep is stored."""
    WITHDRAWAL_SIGNED = "withdrawal.committed"
    """Chain: a signed withdrawal is stored; nobody has seen it."""
    WITHDRAWAL_SENT = "withdrawal.sent"
    """Chain: the network took the withdrawal; that it did is not stored."""
    WITHDRAWAL_FOUND = "withdrawal.found"
    """Chain: what became of a withdrawal is certain; it is not stored."""
    WITHDRAWAL_ENDED = "withdrawal.ended"
    """Chain: what became of a withdrawal is stored."""


OF_NO_JOB: Final = frozenset(
    {
        Barrier.RENTAL_STORED,
        Barrier.RENTAL_ASKED,
        Barrier.RENTAL_ANSWERED,
        Barrier.RENTAL_ENDED,
        Barrier.DEPOSITS_READ,
        Barrier.DEPOSITS_COMMITTED,
        Barrier.SWEEP_SIGNED,
        Barrier.SWEEP_SENT,
        Barrier.SWEEP_ENDED,
        Barrier.WITHDRAWAL_SIGNED,
        Barrier.WITHDRAWAL_SENT,
        Barrier.WITHDRAWAL_FOUND,
        Barrier.WITHDRAWAL_ENDED,
    }
)
"""Those that no job ever reaches."""

Port = Callable[[Barrier], Awaitable[None]]
"""Returns when the process may go on. Cancelling it is safe."""

_ports: list[Port] = []


def install(port: Port | None) -> None:
    """In place of any other; None takes it away."""
    _ports[:] = [] if port is None else [port]


async def reach(barrier: Barrier) -> None:
    for port in _ports:
        await port(barrier)


def forbidden(path: object, network: str) -> str:
    """Why these settings cannot be used together, or ""."""
    return "a process of the main network is never held" if path is not None and network == "main" else ""
