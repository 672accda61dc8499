# SPDX-License-Identifier: Apache-2.0
"""What the live topic `account` tells: its snapshot is the balance, then each step of either in its order."""

from qubix_protocol.api import AccountView, View
from qubix_protocol.withdrawals import WithdrawalView


class BalanceNews(View, frozen=True, kw_only=True, tag_field="about", tag="balance"):
    """`scopes` are of a token, not of the account: only a snapshot, which one token asked for, has them."""

    account: AccountView


class WithdrawalNews(View, frozen=True, kw_only=True, tag_field="about", tag="withdrawal"):
    withdrawal: WithdrawalView


AccountNews = BalanceNews | WithdrawalNews
