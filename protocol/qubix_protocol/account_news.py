# SPDX-License-Identifier: Apache-2.0
"""What the live topic `account` tells: its snapshot is the balance, then each step of either in its order."""

from typing import Final, get_args

import msgspec

from qubix_protocol.api import AccountView, View
from qubix_protocol.withdrawals import WithdrawalView


class BalanceNews(View, frozen=True, kw_only=True, tag_field="about", tag="balance"):
    """`scopes` are of a token, not of the account: only a snapshot, which one token asked for, has them."""

    account: AccountView


class WithdrawalNews(View, frozen=True, kw_only=True, tag_field="about", tag="withdrawal"):
    withdrawal: WithdrawalView


AccountNews = BalanceNews | WithdrawalNews
_KNOWN: Final = frozenset(kind.__struct_config__.tag for kind in get_args(AccountNews))


def read_account_news(data: object) -> AccountNews | None:
    """None for what this version does not know: a newer coordinator may tell more. Raises msgspec.ValidationError for
    what it knows and cannot read."""
    if isinstance(data, dict) and isinstance(data.get("about"), str) and data["about"] not in _KNOWN:
        return None
    return msgspec.convert(data, AccountNews)  # type: ignore[no-any-return]
