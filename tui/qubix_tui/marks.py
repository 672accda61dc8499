# SPDX-License-Identifier: Apache-2.0
"""States as an icon and a word. Pure."""

from typing import Final

from qubix_protocol.disputes import DisputeState
from qubix_protocol.states import AttemptState, JobState, RentalState
from qubix_protocol.withdrawals import WithdrawalState

JOB: Final = {
    JobState.QUEUED: "◌ queued",
    JobState.ASSIGNED: "◍ assigned",
    JobState.RUNNING: "▶ running",
    JobState.VERIFYING: "◐ verifying",
    JobState.DELIVERED: "■ delivered",
    JobState.DISPUTED: "! disputed",
    JobState.SETTLED: "✓ settled",
    JobState.RESOLVED: "✓ resolved",
    JobState.FAILED: "✗ failed",
    JobState.CANCELLED: "✗ cancelled",
}
ATTEMPT: Final = {
    AttemptState.OFFERED: "◌ offered",
    AttemptState.RUNNING: "▶ running",
    AttemptState.VERIFYING: "◐ verifying",
    AttemptState.DELIVERED: "■ delivered",
    AttemptState.ACCEPTED: "✓ accepted",
    AttemptState.REJECTED: "✗ rejected",
    AttemptState.EMPTY: "○ empty",
}
RENTAL: Final = {
    RentalState.REQUESTED: "◌ requested",
    RentalState.STARTING: "◍ starting",
    RentalState.ACTIVE: "▶ active",
    RentalState.UNREACHABLE: "! unreachable",
    RentalState.ENDED: "■ ended",
}
WITHDRAWAL: Final = {
    WithdrawalState.WAITING: "◌ waiting",
    WithdrawalState.SIGNED: "◍ signed",
    WithdrawalState.BROADCAST: "▶ broadcast",
    WithdrawalState.CONFIRMED: "✓ confirmed",
    WithdrawalState.CANCELLED: "✗ cancelled",
    WithdrawalState.REFUSED: "✗ refused",
    WithdrawalState.FAILED: "✗ failed",
}
DISPUTE: Final = {
    DisputeState.OPENED: "! opened",
    DisputeState.RERUNNING: "▶ rerunning",
    DisputeState.JUDGING: "◐ judging",
    DisputeState.RESOLVED: "✓ resolved",
}
