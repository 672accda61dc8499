# SPDX-License-Identifier: Apache-2.0
"""One attempt's receipt: the provider's signed report and the coordinator's signed settlement, checked offline.

A whole job's is in `job_receipt`.
"""

import msgspec

from qubix_protocol import digests
from qubix_protocol.api import View
from qubix_protocol.envelope import read_evidence
from qubix_protocol.errors import Malformed, NotGenuine
from qubix_protocol.keys import public_key_of
from qubix_protocol.messages import Id, Report, Settlement
from qubix_protocol.units import Network

REFUTED = "refuted"
"""A settlement's verdict on work that a spot check found wrong: nothing is paid, and its units are run again."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Both halves as they were signed. `report` is empty when the provider vanished before reporting."""

    network: Network
    provider: str
    coordinator_key: bytes
    report: bytes
    settlement: bytes


class JobReceiptView(View, frozen=True, kw_only=True):
    """`GET /jobs/{id}/receipt`: the file of `chain.to_file`, as text."""

    job_id: Id
    receipt: str


class CheckedReceipt(msgspec.Struct, frozen=True, kw_only=True):
    report: Report | None
    settlement: Settlement


def check(receipt: Receipt, *, coordinator_key: bytes) -> CheckedReceipt:
    """Both signatures, and that both halves speak of the same attempt, provider and output.

    `coordinator_key` is the key that the reader trusts, not the one inside the receipt. Raises `ProtocolError`.
    """
    if receipt.coordinator_key != coordinator_key:
        raise NotGenuine("the receipt names another coordinator than the one you trust")
    settlement = read_evidence(receipt.settlement, network=receipt.network, sender=coordinator_key).body(Settlement)
    if settlement.provider != receipt.provider or settlement.network != receipt.network:
        raise NotGenuine("the settlement is of another provider or network")
    if not receipt.report:
        if settlement.report_digest != digests.ZERO:
            raise Malformed("the provider's report is missing from the receipt")
        return CheckedReceipt(report=None, settlement=settlement)
    return CheckedReceipt(report=_check_report(receipt, settlement), settlement=settlement)


def _check_report(receipt: Receipt, settlement: Settlement) -> Report:
    opened = read_evidence(receipt.report, network=receipt.network, sender=public_key_of(receipt.provider))
    report = opened.body(Report)
    if digests.of_bytes(receipt.report) != settlement.report_digest:
        raise NotGenuine("the settlement is of another report")
    if (report.job_id, report.attempt_id, report.head) != (settlement.job_id, settlement.attempt_id, settlement.head):
        raise NotGenuine("report and settlement speak of different work")
    return report
