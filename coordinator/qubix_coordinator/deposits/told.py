# SPDX-License-Identifier: Apache-2.0
"""What one source of the network tells of one transaction that was signed here: `rules.fate` judges it."""

from qubix_chain.rpc.errors import NotYetProcessed, SkippedTick
from qubix_chain.rpc.types import Balance
from qubix_coordinator.deposits.ports import Chain, Signed
from qubix_coordinator.deposits.rules import Told, Totals


async def ask(source: Chain, signed: Signed) -> Told:
    """How far the archive is comes first: what it lacks later than that proves something, earlier nothing.

    Raises ChainError.
    """
    processed = await source.last_processed_tick()
    if processed.tick < signed.tick:
        return _too_early(processed.tick)
    archived = await source.transaction_by_hash(signed.tx_id)
    found = archived is not None and archived.tick == signed.tick
    flew = found and archived is not None and archived.money_flew
    if not flew and processed.log_tick is not None:
        if processed.log_tick < signed.tick:
            return _too_early(processed.log_tick)
        flew = await _logged(source, signed)
    listed = await _listed(source, signed)
    return Told(processed.tick, found, flew, listed, totals_of(await source.balance(signed.source)))


def totals_of(balance: Balance) -> Totals:
    return Totals(balance.outgoing_qu, balance.outgoing_count, balance.valid_for_tick)


async def _listed(source: Chain, signed: Signed) -> bool | None:
    try:
        data = await source.tick_data(signed.tick)
    except SkippedTick:
        return False
    except NotYetProcessed:
        return None
    return data is not None and signed.tx_id in data.tx_ids


async def _logged(source: Chain, signed: Signed) -> bool:
    """An event log of this very transfer, from a source that keeps them."""
    logs = await source.qu_transfers(signed.tick, signed.destination)
    wanted = (signed.tx_id, signed.source, signed.amount_qu)
    return any((one.tx_id, one.source, one.amount_qu) == wanted for one in logs or ())


def _too_early(processed_tick: int) -> Told:
    return Told(processed_tick, False, False, None, Totals(0, 0, 0))
