# SPDX-License-Identifier: Apache-2.0
"""The node's errors.

NodeError
├── Fatal                 the node cannot go on; the text says what to do (exit status 1)
│   ├── UnsafeKeyFile     others can read the key, or the file is not a key
│   ├── AlreadyRunning    another node uses this data folder
│   ├── NotRunning        what was asked is for a node that runs, and none does
│   ├── CannotWrite       the data folder cannot be made or written to
│   ├── CoordinatorChanged  the coordinator's key is not the one that was pinned
│   ├── OtherNetwork      the data folder, the settings and the coordinator name different networks
│   ├── EnrolmentRefused  the coordinator said no
│   ├── NoBox             a box is required and this machine makes none
│   └── NothingToOffer    no device of this machine may be offered
├── Unreachable           the coordinator's HTTP does not answer now; worth another try
├── StatementRefused      the coordinator's HTTP does not take this link or report
├── NotLinked             no session with the coordinator stands within the time given
├── LinkLost              the control stream's other side broke the rules or fell silent
├── StoreError
│   ├── StoreRefused      the artifact store said no: asking again will not help
│   ├── StoreUnavailable  it did not answer, however often it was asked
│   └── WrongContent      it gave bytes that are not what the digest says
├── CardGone              a device will not answer again until the node starts anew
├── NoReading             a device did not tell anything this time
├── WorkerLost            the worker died or said something that is not an event
└── JournalDamaged        the journal is not one of ours
"""


class NodeError(Exception):
    """`code` is constant and countable; the message is for people."""

    code = "node"


class Fatal(NodeError):
    code = "fatal"


class UnsafeKeyFile(Fatal):
    code = "unsafe_key_file"


class AlreadyRunning(Fatal):
    code = "already_running"


class NotRunning(Fatal):
    """What was asked is for a node that runs, and none does."""


class CannotWrite(Fatal):
    code = "cannot_write"


class CoordinatorChanged(Fatal):
    code = "coordinator_changed"


class OtherNetwork(Fatal):
    code = "other_network"


class EnrolmentRefused(Fatal):
    code = "enrolment_refused"


class NothingToOffer(Fatal):
    code = "nothing_to_offer"


class NoBox(Fatal):
    code = "no_box"


class Unreachable(NodeError):
    code = "unreachable"


class StatementRefused(NodeError):
    code = "statement_refused"


class NotLinked(NodeError):
    code = "not_linked"


class LinkLost(NodeError):
    code = "link_lost"


class StoreError(NodeError):
    code = "store"


class StoreRefused(StoreError):
    code = "store_refused"


class StoreUnavailable(StoreError):
    code = "store_unavailable"


class WrongContent(StoreError):
    code = "wrong_content"


class CardGone(NodeError):
    code = "card_gone"


class NoReading(NodeError):
    code = "no_reading"


class WorkerLost(NodeError):
    code = "worker_lost"


class JournalDamaged(NodeError):
    code = "journal_damaged"
