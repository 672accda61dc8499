-- SPDX-License-Identifier: Apache-2.0
-- Qubic wallets that speak for accounts or are paid by them, the challenges they sign, and sessions.
--
--   signature  the wallet signed a challenge: it signs in, and pay-outs may go to it
--   payment    an exact amount came from the address: pay-outs may go to it, and it never signs in (trust.md A3)

CREATE TABLE wallet (
    id         uuid PRIMARY KEY,
    account_id uuid NOT NULL CONSTRAINT wallet_account_fk REFERENCES account (id),
    public_key bytea NOT NULL CONSTRAINT wallet_key_has_32_bytes CHECK (octet_length(public_key) = 32),
    proof      text NOT NULL CONSTRAINT wallet_proof_known CHECK (proof IN ('signature', 'payment')),
    since      timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz,
    -- What sessions refer to, so that none can come from a payment.
    CONSTRAINT wallet_proof_of_id UNIQUE (id, proof)
);
CREATE UNIQUE INDEX wallet_key_signs_for_one_account ON wallet (public_key)
    WHERE proof = 'signature' AND ended_at IS NULL;
CREATE UNIQUE INDEX wallet_once_in_an_account ON wallet (account_id, public_key) WHERE ended_at IS NULL;
CREATE INDEX wallet_by_account ON wallet (account_id, since);

-- Whose key it is and how it was proved never changes, but by a stronger proof; an ended wallet stays as it is.
CREATE FUNCTION wallet_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.ended_at IS NOT NULL
        OR (NEW.id, NEW.account_id, NEW.public_key) IS DISTINCT FROM (OLD.id, OLD.account_id, OLD.public_key)
        OR (NEW.proof <> OLD.proof AND OLD.proof <> 'payment') THEN
        RAISE EXCEPTION 'wallet % is kept as it was proved', OLD.id USING ERRCODE = 'QX010';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER wallet_kept BEFORE UPDATE OR DELETE ON wallet FOR EACH ROW EXECUTE FUNCTION wallet_kept();

-- Wallets have a table of their own: their keys are FourQ's, those of account_key Ed25519's.
ALTER TABLE account_key
    DROP CONSTRAINT account_key_purpose_known,
    ADD CONSTRAINT account_key_purpose_known CHECK (purpose IN ('order', 'node'));

CREATE TABLE wallet_challenge (
    nonce      bytea PRIMARY KEY CONSTRAINT wallet_challenge_nonce_has_16_bytes CHECK (octet_length(nonce) = 16),
    purpose    text NOT NULL CONSTRAINT wallet_challenge_purpose_known CHECK (purpose IN ('sign-in', 'bind')),
    public_key bytea NOT NULL CONSTRAINT wallet_challenge_key_has_32_bytes CHECK (octet_length(public_key) = 32),
    account_id uuid CONSTRAINT wallet_challenge_account_fk REFERENCES account (id),
    asked_from bytea NOT NULL CONSTRAINT wallet_challenge_asked_from_is_digest CHECK (octet_length(asked_from) = 16),
    text       text NOT NULL
               CONSTRAINT wallet_challenge_text_bounded CHECK (octet_length(text) BETWEEN 81 AND 1000)
               CONSTRAINT wallet_challenge_text_printable CHECK (text ~ '^[\x20-\x7e\n]+$'),
    issued_at  timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz,
    CONSTRAINT wallet_challenge_binds_to_an_account CHECK ((account_id IS NOT NULL) = (purpose = 'bind')),
    CONSTRAINT wallet_challenge_expires_soon
        CHECK (expires_at > issued_at AND expires_at <= issued_at + interval '15 minutes'),
    CONSTRAINT wallet_challenge_used_in_time CHECK (used_at >= issued_at AND used_at < expires_at)
);
CREATE INDEX wallet_challenge_by_asker ON wallet_challenge (asked_from, public_key, issued_at);
CREATE INDEX wallet_challenge_by_expiry ON wallet_challenge (expires_at);

CREATE TABLE payment_proof (
    id         uuid PRIMARY KEY,
    account_id uuid NOT NULL CONSTRAINT payment_proof_account_fk REFERENCES account (id),
    public_key bytea NOT NULL CONSTRAINT payment_proof_key_has_32_bytes CHECK (octet_length(public_key) = 32),
    amount_qu  bigint NOT NULL
               CONSTRAINT payment_proof_amount_in_range CHECK (amount_qu BETWEEN 1 AND 1000000000000000),
    issued_at  timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    proved_at  timestamptz,
    CONSTRAINT payment_proof_expires CHECK (expires_at > issued_at AND expires_at <= issued_at + interval '7 days')
);
CREATE INDEX payment_proof_open ON payment_proof (account_id, public_key) WHERE proved_at IS NULL;
CREATE INDEX payment_proof_by_expiry ON payment_proof (expires_at) WHERE proved_at IS NULL;

-- A token may end by itself. One that a wallet's signature gave is a session; it ends with the wallet's binding.
ALTER TABLE api_token
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN wallet_id uuid,
    ADD COLUMN wallet_proof text GENERATED ALWAYS AS (CASE WHEN wallet_id IS NOT NULL THEN 'signature' END) STORED,
    ADD CONSTRAINT api_token_wallet_signed FOREIGN KEY (wallet_id, wallet_proof) REFERENCES wallet (id, proof),
    ADD CONSTRAINT api_token_session_expires CHECK (wallet_id IS NULL OR expires_at IS NOT NULL),
    ADD CONSTRAINT api_token_expires_later CHECK (expires_at > created_at);
CREATE INDEX api_token_by_wallet ON api_token (wallet_id) WHERE wallet_id IS NOT NULL;
