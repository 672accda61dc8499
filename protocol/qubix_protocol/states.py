# SPDX-License-Identifier: Apache-2.0
"""States and typed reasons as they appear on a wire.

Nodes *report* (`Outcome`), the coordinator *decides* (`JobState`, `AttemptState`): separate types, never mixed.
"""

from enum import StrEnum
from typing import Final


class JobState(StrEnum):
    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    VERIFYING = "verifying"
    DELIVERED = "delivered"
    """Of a kernel without a verifier: its outputs are here and readable, and are paid by the consumer's word or when
    the acceptance window ends."""
    DISPUTED = "disputed"
    """Somebody disputes what was delivered; the hold stays until that is decided."""
    SETTLED = "settled"
    RESOLVED = "resolved"
    """Paid and returned as a dispute was decided."""
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL_JOB_STATES = frozenset({JobState.SETTLED, JobState.RESOLVED, JobState.FAILED, JobState.CANCELLED})
DONE_JOB_STATES = FINAL_JOB_STATES | {JobState.DELIVERED, JobState.DISPUTED}
"""Nobody works on it any more: what there is of a result is readable."""


class AttemptState(StrEnum):
    OFFERED = "offered"
    """Sent to the node; it has not said yes yet."""
    RUNNING = "running"
    VERIFYING = "verifying"
    """Ended on the node's side (reported, lost or cancelled); its links wait for the check."""
    DELIVERED = "delivered"
    """Its outputs are committed, of the right form and readable; they are not paid yet (see `JobState.DELIVERED`)."""
    ACCEPTED = "accepted"
    """Every link it made was accepted (it may still be only a part of the job)."""
    REJECTED = "rejected"
    """A link failed its check; links before the first bad one may still have been paid."""
    EMPTY = "empty"
    """Ended without a link: nothing to check, nothing to pay."""


FINAL_ATTEMPT_STATES = frozenset({AttemptState.ACCEPTED, AttemptState.REJECTED, AttemptState.EMPTY})


class Isolation(StrEnum):
    """What stands between a job and the provider's machine."""

    BOX = "box"
    """Namespaces, Landlock, a list of system calls and limits around every job."""
    LIMITED = "limited"
    """A child process with what the system has of these: for QUBIX's own kernels and for models."""


class Outcome(StrEnum):
    """What a node says of its own attempt."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Reason(StrEnum):
    """Why a job or an attempt is in its state. One word a cause; people read `REASON_TEXT`."""

    NONE = "none"
    WAITING_FOR_PROVIDER = "waiting_for_provider"
    NOBODY_FITS = "nobody_fits"
    TOO_DEAR = "too_dear"
    COMPLETED = "completed"
    DECLINED = "declined"
    NOT_ACCEPTED_IN_TIME = "not_accepted_in_time"
    SILENT = "silent"
    NODE_FAILED = "node_failed"
    NODE_RESTARTED = "node_restarted"
    OVERDUE = "overdue"
    WRONG_RESULT = "wrong_result"
    CHECK_FAILED = "check_failed"
    """The check itself could not be carried out (not the provider's fault)."""
    CANCELLED_BY_CONSUMER = "cancelled_by_consumer"
    CAP_REACHED = "cap_reached"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    RELIEVED = "relieved"
    """Slower than agreed while somebody else was free: what it had not done goes there (not a failure)."""
    JOB_ENDED = "job_ended"
    """The job could not be completed, for a reason that is not this attempt's."""
    BAD_INPUT = "bad_input"
    AWAITING_ACCEPTANCE = "awaiting_acceptance"
    ACCEPTED_BY_CONSUMER = "accepted_by_consumer"
    NOT_DISPUTED = "not_disputed"
    DISPUTE_OPENED = "dispute_opened"
    DISPUTE_DECIDED = "dispute_decided"
    RENTAL_ENDED = "rental_ended"
    """The rental that the job ran on is over."""
    DRAINING = "draining"
    """The provider takes no more work (not a failure)."""
    LEFT = "left"
    """The provider said that it goes, and did not come back at once. Its record says that it did not finish; the job
    is none the worse for it."""
    SPOT_CHECK_FAILED = "spot_check_failed"
    """Two unrelated providers ran a part of it again and made something else."""
    SPOT_CHECK_UNDECIDED = "spot_check_undecided"
    """One unrelated provider made something else, and nobody could be found to say who is right."""


REASON_TEXT: dict[Reason, str] = {
    Reason.NONE: "",
    Reason.WAITING_FOR_PROVIDER: "waiting for a provider that fits",
    Reason.NOBODY_FITS: "no provider in the market can run this job now; it is retried as offers change",
    Reason.TOO_DEAR: "the forecast of every fitting provider is above what is left of the cap; raise the cap",
    Reason.COMPLETED: "finished by the provider",
    Reason.DECLINED: "the provider declined; another one is asked",
    Reason.NOT_ACCEPTED_IN_TIME: "the provider did not answer the assignment in time; another one is asked",
    Reason.SILENT: "the provider fell silent; the job goes on elsewhere",
    Reason.NODE_FAILED: "the provider reported a failure; the job goes on elsewhere",
    Reason.NODE_RESTARTED: "the provider restarted in the middle; the job goes on elsewhere",
    Reason.OVERDUE: "the provider took longer than the agreed limit",
    Reason.WRONG_RESULT: "the check refused the result: it is not paid",
    Reason.CHECK_FAILED: "the check could not be carried out; nothing was charged for the unchecked part",
    Reason.CANCELLED_BY_CONSUMER: "cancelled by the consumer; checked chunks were paid, the rest returned",
    Reason.CAP_REACHED: "the cap is used up; checked chunks were paid",
    Reason.ATTEMPTS_EXHAUSTED: "too many attempts failed; the unspent hold was returned",
    Reason.EXPIRED: "the job was not finished before its deadline; the unspent hold was returned",
    Reason.SUPERSEDED: "a newer attempt has taken its place",
    Reason.RELIEVED: "slower than its forecast while another provider was free; the rest goes on there",
    Reason.JOB_ENDED: "the job could not be completed; checked chunks were paid",
    Reason.BAD_INPUT: "the kernel refused the input data",
    Reason.AWAITING_ACCEPTANCE: "the result is here: accept it or dispute it before the acceptance window ends",
    Reason.ACCEPTED_BY_CONSUMER: "accepted by the consumer and paid",
    Reason.NOT_DISPUTED: "paid: nobody disputed it within the acceptance window",
    Reason.DISPUTE_OPENED: "disputed: nothing is paid or returned until that is decided",
    Reason.DISPUTE_DECIDED: "paid and returned as the dispute was decided",
    Reason.RENTAL_ENDED: "the rental that it ran on has ended; what was checked is readable",
    Reason.DRAINING: "the provider takes no more work; another one is asked",
    Reason.LEFT: "the provider has left and handed the rest back; it goes on elsewhere",
    Reason.SPOT_CHECK_FAILED: "two others made something else of it: it is not paid, and new earnings are forfeit",
    Reason.SPOT_CHECK_UNDECIDED: "another one made something else of it, and no third one was found: it is not paid",
}


class RentalState(StrEnum):
    REQUESTED = "requested"
    """Hold and device are set aside; the node has not said yes yet."""
    STARTING = "starting"
    """The node said yes; it has answered no nonce yet. Nothing is billed so far."""
    ACTIVE = "active"
    UNREACHABLE = "unreachable"
    """The last nonce was not answered: the meter stands until one is."""
    ENDED = "ended"


class RentalReason(StrEnum):
    """Why a rental is in its state. One word a cause; people read `RENTAL_REASON_TEXT`."""

    NONE = "none"
    STOPPED_BY_CONSUMER = "stopped_by_consumer"
    TIME_OVER = "time_over"
    HOLD_USED_UP = "hold_used_up"
    PROVIDER_GONE = "provider_gone"
    PROVIDER_MAINTENANCE = "provider_maintenance"
    SHORT_NOTICE = "short_notice"
    """The provider ended it with less notice than it owes."""
    DEVICE_LOST = "device_lost"
    DECLINED = "declined"
    NEVER_STARTED = "never_started"


RENTAL_REASON_TEXT: dict[RentalReason, str] = {
    RentalReason.NONE: "",
    RentalReason.STOPPED_BY_CONSUMER: "stopped by the consumer; the rest of the hold was returned",
    RentalReason.TIME_OVER: "the agreed time is over",
    RentalReason.HOLD_USED_UP: "the hold is used up",
    RentalReason.PROVIDER_GONE: "the provider fell silent; nothing was billed since its last answer",
    RentalReason.PROVIDER_MAINTENANCE: "the provider ended it for maintenance, with the notice it owes",
    RentalReason.SHORT_NOTICE: "the provider ended it with less notice than it owes",
    RentalReason.DEVICE_LOST: "the device failed or was taken away; nothing was billed since its last answer",
    RentalReason.DECLINED: "the provider did not take it; nothing was billed",
    RentalReason.NEVER_STARTED: "the provider did not answer in time; nothing was billed",
}


class Availability(StrEnum):
    AVAILABLE = "available"
    BUSY = "busy"
    RENTED = "rented"
    """To one consumer for a time: it takes that consumer's jobs alone."""
    DRAINING = "draining"
    OFFLINE = "offline"


class DeviceKind(StrEnum):
    CUDA = "cuda"
    CPU = "cpu"
    WEBGPU = "webgpu"

    def titled(self, model: str) -> str:
        """A CPU is called one wherever it may stand beside GPUs."""
        return f"{model} (CPU)" if self is DeviceKind.CPU else model


SOFTWARE_NAMES: Final = ("swiftshader", "llvmpipe", "lavapipe", "softpipe", "basic render driver")
"""In the names of what computes on the processor in a GPU's place."""


def named_software(model: str, driver: str) -> bool:
    named = f"{model} {driver}".lower()
    return any(word in named for word in SOFTWARE_NAMES)


class Throttle(StrEnum):
    """What keeps a GPU's clock below its highest. `IDLE` is no fault: there is nothing to do."""

    IDLE = "idle"
    SET_BY_USER = "set_by_user"
    POWER_CAP = "power_cap"
    HW_SLOWDOWN = "hw_slowdown"
    """Any of the next two kinds, or a brake outside the card; older drivers say no more than this."""
    HW_THERMAL = "hw_thermal"
    POWER_BRAKE = "power_brake"
    THERMAL = "thermal"
    SYNC_BOOST = "sync_boost"
    DISPLAY = "display"
    OTHER = "other"


class OrderKeyKind(StrEnum):
    """What holds a key that signs an account's orders, as it says itself."""

    SDK = "sdk"
    """A program on somebody's machine."""
    BROWSER = "browser"
    """A browser, whose scripts cannot read it."""
    OTHER = "other"


class OrderKeyWay(StrEnum):
    """By whose word a key came to sign an account's orders, or stopped."""

    ORDER = "order"
    """It signed the account's first signed order."""
    SESSION = "session"
    """Whoever was signed in, while the account had never had a key."""
    KEY = "key"
    """Another key of the account signed for it."""
    WALLET = "wallet"
    """A wallet of the account signed for it."""
