-- SPDX-License-Identifier: Apache-2.0
-- Several keys sign an account's orders (docs/adr/0038). Rows are never deleted: a revoked key never signs again, and an
-- account that has ever had a key never spends without one.

ALTER TABLE account_key ADD CONSTRAINT account_key_of_account UNIQUE (public_key, account_id, purpose);

-- Whether the wallet's signature adds and revokes such keys.
ALTER TABLE wallet
    ADD COLUMN approves_keys boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT wallet_approves_by_signature CHECK (NOT approves_keys OR proof = 'signature');
UPDATE wallet w SET approves_keys = true
    WHERE ended_at IS NULL AND proof = 'signature' AND NOT EXISTS (
        SELECT FROM account_key k WHERE k.account_id = w.account_id AND k.purpose = 'order' AND k.created_at < w.since);

CREATE TABLE order_key (
    public_key        bytea PRIMARY KEY,
    account_id        uuid NOT NULL CONSTRAINT order_key_account_fk REFERENCES account (id),
    purpose           text NOT NULL GENERATED ALWAYS AS ('order') STORED,
    name              text NOT NULL CONSTRAINT order_key_name_bounded CHECK (length(name) BETWEEN 1 AND 100),
    kind              text NOT NULL CONSTRAINT order_key_kind_known CHECK (kind IN ('sdk', 'browser', 'other')),
    created_at        timestamptz NOT NULL,
    added_by          text NOT NULL
                      CONSTRAINT order_key_added_by_known CHECK (added_by IN ('order', 'session', 'key', 'wallet')),
    added_by_key      bytea CONSTRAINT order_key_adder_fk REFERENCES order_key (public_key),
    added_by_wallet   uuid CONSTRAINT order_key_added_by_wallet_fk REFERENCES wallet (id),
    last_used_at      timestamptz,
    revoked_at        timestamptz,
    revoked_by        text CONSTRAINT order_key_revoked_by_known CHECK (revoked_by IN ('key', 'wallet')),
    revoked_by_key    bytea CONSTRAINT order_key_revoker_fk REFERENCES order_key (public_key),
    revoked_by_wallet uuid CONSTRAINT order_key_revoked_by_wallet_fk REFERENCES wallet (id),
    CONSTRAINT order_key_is_of_its_account FOREIGN KEY (public_key, account_id, purpose)
        REFERENCES account_key (public_key, account_id, purpose),
    CONSTRAINT order_key_adder_named CHECK (
        (added_by = 'key') = (added_by_key IS NOT NULL) AND (added_by = 'wallet') = (added_by_wallet IS NOT NULL)),
    CONSTRAINT order_key_revoker_named CHECK (
        (revoked_at IS NULL) = (revoked_by IS NULL)
        AND (revoked_by IS NOT DISTINCT FROM 'key') = (revoked_by_key IS NOT NULL)
        AND (revoked_by IS NOT DISTINCT FROM 'wallet') = (revoked_by_wallet IS NOT NULL)),
    CONSTRAINT order_key_revoked_later CHECK (revoked_at >= created_at)
);
CREATE INDEX order_key_by_account ON order_key (account_id, created_at);
-- Only an account's first key comes by nobody's signature but its own.
CREATE UNIQUE INDEX order_key_one_unapproved ON order_key (account_id) WHERE added_by IN ('order', 'session');

INSERT INTO order_key (public_key, account_id, name, kind, created_at, added_by)
    SELECT public_key, account_id, 'first key', 'sdk', created_at, 'order' FROM account_key WHERE purpose = 'order';
DROP INDEX account_key_one_order_key;

CREATE FUNCTION order_key_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.added_by IN ('order', 'session') AND EXISTS (SELECT FROM order_key WHERE account_id = NEW.account_id) THEN
            RAISE EXCEPTION 'account % has keys: another one needs a signature', NEW.account_id USING ERRCODE = 'QX011';
        END IF;
    ELSIF TG_OP = 'DELETE' OR OLD.revoked_at IS NOT NULL
        OR (NEW.public_key, NEW.account_id, NEW.name, NEW.kind, NEW.created_at, NEW.added_by, NEW.added_by_key,
            NEW.added_by_wallet) IS DISTINCT FROM (OLD.public_key, OLD.account_id, OLD.name, OLD.kind, OLD.created_at,
            OLD.added_by, OLD.added_by_key, OLD.added_by_wallet) THEN
        RAISE EXCEPTION 'an order key is kept as it was added, and once revoked stays so' USING ERRCODE = 'QX011';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER order_key_kept BEFORE INSERT OR UPDATE OR DELETE ON order_key
    FOR EACH ROW EXECUTE FUNCTION order_key_kept();

ALTER TABLE wallet_challenge
    DROP CONSTRAINT wallet_challenge_purpose_known,
    ADD CONSTRAINT wallet_challenge_purpose_known
        CHECK (purpose IN ('sign-in', 'bind', 'add-order-key', 'revoke-order-key')),
    DROP CONSTRAINT wallet_challenge_binds_to_an_account,
    ADD CONSTRAINT wallet_challenge_binds_to_an_account CHECK ((account_id IS NULL) = (purpose = 'sign-in'));

-- Of the key that opened the session; it ends with the key.
ALTER TABLE api_token
    ADD COLUMN order_key bytea CONSTRAINT api_token_order_key_fk REFERENCES order_key (public_key);
CREATE INDEX api_token_by_order_key ON api_token (order_key) WHERE order_key IS NOT NULL;
