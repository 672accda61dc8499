# SPDX-License-Identifier: Apache-2.0
"""All that each side may say to the other in a control session."""

from qubix_protocol.messages import (
    Accept,
    Acknowledged,
    Assign,
    Cancel,
    Challenge,
    Decline,
    Heartbeat,
    Hello,
    Progress,
    Refused,
    Renewal,
    RentalAccept,
    RentalBeat,
    RentalDecline,
    RentalEnd,
    RentalNonce,
    RentalNotice,
    RentalStart,
    Report,
    Settlement,
    Telemetry,
    Welcome,
)
from qubix_protocol.selftest import SelfTest, SelfTestAsk

FromNode = (
    Hello
    | Accept
    | Decline
    | Heartbeat
    | Progress
    | Report
    | Telemetry
    | RentalAccept
    | RentalDecline
    | RentalBeat
    | RentalNotice
    | SelfTest
    | Refused
)
FromCoordinator = (
    Challenge
    | Welcome
    | Renewal
    | Assign
    | Cancel
    | Acknowledged
    | Settlement
    | RentalStart
    | RentalNonce
    | RentalEnd
    | SelfTestAsk
    | Refused
)
