# SPDX-License-Identifier: Apache-2.0
"""Why a model, or what it is given, cannot be run as it is: for programs by a code, for people with what to do."""

from qubix_kernels.kernel import BadInput


class Refused(BadInput):
    """`code` is one of a few words; `remedy` says what to do, where something can be done."""

    def __init__(self, code: str, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}: {remedy}" if remedy else problem)
        self.code, self.problem, self.remedy = code, problem, remedy
