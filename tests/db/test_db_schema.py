# SPDX-License-Identifier: Apache-2.0
"""The constraints that the design counts on are really in the database."""

import pytest

from qubix_coordinator.db.database import Database

# c CHECK, f foreign key, p primary key, t constraint trigger, u unique
CONSTRAINTS = {
    "network": "network_single:c network_name_known:c network_name_unique:u network_pkey:p",
    "event": "event_pkey:p event_topic_shape:c event_payload_bounded:c",
    "event_horizon": "event_horizon_pkey:p event_horizon_single:c",
    "account": "account_pkey:p account_kind_known:c account_name_bounded:c",
    "account_key": "account_key_pkey:p account_key_account_fk:f account_key_is_ed25519:c account_key_purpose_known:c"
    " account_key_of_account:u",
    "order_key": "order_key_pkey:p order_key_account_fk:f order_key_name_bounded:c order_key_kind_known:c"
    " order_key_added_by_known:c order_key_adder_fk:f order_key_added_by_wallet_fk:f order_key_revoked_by_known:c"
    " order_key_revoker_fk:f order_key_revoked_by_wallet_fk:f order_key_is_of_its_account:f order_key_adder_named:c"
    " order_key_revoker_named:c order_key_revoked_later:c",
    "api_token": "api_token_pkey:p api_token_account_fk:f api_token_digest_unique:u api_token_digest_is_sha256:c"
    " api_token_name_bounded:c api_token_scopes_known:c api_token_scopes_some:c api_token_wallet_signed:f"
    " api_token_session_expires:c api_token_expires_later:c api_token_order_key_fk:f",
    "wallet": "wallet_pkey:p wallet_account_fk:f wallet_key_has_32_bytes:c wallet_proof_known:c wallet_proof_of_id:u"
    " wallet_approves_by_signature:c",
    "wallet_challenge": "wallet_challenge_pkey:p wallet_challenge_nonce_has_16_bytes:c wallet_challenge_account_fk:f"
    " wallet_challenge_purpose_known:c wallet_challenge_key_has_32_bytes:c wallet_challenge_asked_from_is_digest:c"
    " wallet_challenge_text_bounded:c wallet_challenge_text_printable:c wallet_challenge_binds_to_an_account:c"
    " wallet_challenge_expires_soon:c wallet_challenge_used_in_time:c",
    "payment_proof": "payment_proof_pkey:p payment_proof_account_fk:f payment_proof_key_has_32_bytes:c"
    " payment_proof_amount_in_range:c payment_proof_expires:c",
    "node": "node_pkey:p node_account_fk:f node_key_fk:f node_key_unique:u node_peer_id_bounded:c"
    " node_incarnation_counts:c",
    "ledger_account": "ledger_account_pkey:p ledger_account_kind_known:c ledger_account_once:u ledger_account_user_fk:f"
    " ledger_account_owner_present:c ledger_account_user_not_negative:c ledger_account_hold_not_negative:c"
    " ledger_account_fees_not_negative:c"
    " ledger_account_bond_not_negative:c ledger_account_fund_not_negative:c ledger_account_withdrawal_not_negative:c",
    "transfer": "transfer_pkey:p transfer_kind_known:c transfer_cause_once:u transfer_cause_bounded:c"
    " transfer_digest_is_sha256:c transfer_network_fk:f transfer_no_development_credit_on_main:c"
    " transfer_job_present:c transfer_balanced:t",
    "entry": "entry_pkey:p entry_transfer_fk:f entry_account_fk:f entry_amount_not_zero:c entry_amount_bounded:c"
    " entry_one_per_account:u",
    "ledger_pending": "ledger_pending_pkey:p ledger_pending_account_fk:f ledger_pending_entry_fk:f",
    "hold": "hold_pkey:p hold_payer_fk:f hold_positive:c hold_paid_not_negative:c hold_fees_not_negative:c"
    " hold_returned_not_negative:c hold_not_overspent:c hold_closed_when_spent:c",
}
TRIGGERS = {
    "wallet": "wallet_kept",
    "order_key": "order_key_kept",
    "network": "network_append_only network_no_truncate",
    "transfer": "transfer_append_only transfer_no_truncate transfer_stamped transfer_balanced",
    "entry": "entry_append_only entry_no_truncate entry_posted entry_posted_earned",
    "ledger_account": "ledger_account_opens_at_zero ledger_account_kept ledger_account_no_delete"
    " ledger_account_no_truncate",
    "hold": "hold_kept hold_no_delete hold_no_truncate",
    "ledger_pending": "ledger_pending_kept ledger_pending_no_update ledger_pending_no_truncate ledger_pending_swept",
}


@pytest.mark.asyncio
async def test_every_expected_constraint_is_there_and_enforced(db: Database) -> None:
    found = await db.fetch(
        "SELECT conrelid::regclass::text AS relation, conname, contype::text AS kind, convalidated, conenforced"
        " FROM pg_constraint WHERE contype <> 'n' AND connamespace = 'public'::regnamespace"
    )
    assert all(row["convalidated"] and row["conenforced"] for row in found)
    there: dict[str, set[str]] = {}
    for row in found:
        there.setdefault(row["relation"], set()).add(f"{row['conname']}:{row['kind']}")
    assert {name: there.get(name) for name in CONSTRAINTS} == {k: set(v.split()) for k, v in CONSTRAINTS.items()}


@pytest.mark.asyncio
async def test_every_guarding_trigger_is_there_and_enabled(db: Database) -> None:
    found = await db.fetch(
        "SELECT tgrelid::regclass::text AS relation, tgname, tgenabled::text AS on FROM pg_trigger"
        " WHERE NOT tgisinternal"
    )
    assert {row["on"] for row in found} == {"O"}
    there: dict[str, set[str]] = {}
    for row in found:
        there.setdefault(row["relation"], set()).add(row["tgname"])
    assert {name: there.get(name) for name in TRIGGERS} == {k: set(v.split()) for k, v in TRIGGERS.items()}


@pytest.mark.asyncio
async def test_partial_unique_indexes_are_there(db: Database) -> None:
    found = await db.fetch("SELECT indexdef FROM pg_indexes WHERE indexname = 'order_key_one_unapproved'")
    assert "UNIQUE" in found[0]["indexdef"]
    assert "WHERE (added_by = ANY" in found[0]["indexdef"]
