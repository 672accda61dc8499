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
    Leaving,
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
    Settlements,
    SettlementsAsk,
    Telemetry,
    Welcome,
)
from qubix_protocol.selftest import SelfTest, SelfTestAsk
from qubix_protocol.trials import (
    TrialAnswer,
    TrialAsk,
    TrialEnd,
    TrialFailed,
    TrialFilled,
    TrialGo,
    TrialProve,
    TrialReady,
)
from qubix_protocol.wishes import DeviceWish, DeviceWishTaken

Statement = (
    Accept
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
    | TrialReady
    | TrialFilled
    | TrialAnswer
    | TrialFailed
    | DeviceWishTaken
    | Leaving
    | SettlementsAsk
    | Refused
)
"""What a node says once the handshake is done."""
FromNode = Hello | Statement
FromCoordinator = (
    Challenge
    | Welcome
    | Renewal
    | Assign
    | Cancel
    | Acknowledged
    | Settlement
    | Settlements
    | RentalStart
    | RentalNonce
    | RentalEnd
    | SelfTestAsk
    | TrialAsk
    | TrialGo
    | TrialProve
    | TrialEnd
    | DeviceWish
    | Refused
)
