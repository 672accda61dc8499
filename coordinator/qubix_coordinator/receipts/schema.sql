-- SPDX-License-Identifier: Apache-2.0
-- Chains of signed entries (docs/receipts.md). An entry is written in the transaction that causes it, under the lock of
-- what the chain is about; it is never changed, and each names the one before it.

CREATE TABLE receipt_entry (
    chain_id    uuid NOT NULL,
    index       integer NOT NULL CONSTRAINT receipt_entry_index_bounded CHECK (index BETWEEN 0 AND 999999),
    kind        text NOT NULL CONSTRAINT receipt_entry_kind_shape CHECK (kind ~ '^[a-z][a-z0-9_]{0,63}$'),
    entry       text NOT NULL CONSTRAINT receipt_entry_entry_shape CHECK (entry ~ '^[a-z][a-z0-9_]{0,63}$'),
    predecessor bytea NOT NULL CONSTRAINT receipt_entry_predecessor_is_sha256 CHECK (octet_length(predecessor) = 32),
    raw         bytea NOT NULL CONSTRAINT receipt_entry_bounded CHECK (octet_length(raw) BETWEEN 1 AND 1048576),
    digest      bytea NOT NULL GENERATED ALWAYS AS (sha256(raw)) STORED,
    at_ms       bigint NOT NULL,
    PRIMARY KEY (chain_id, index)
);

CREATE FUNCTION receipt_follows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before receipt_entry;
BEGIN
    SELECT * INTO before FROM receipt_entry WHERE chain_id = NEW.chain_id ORDER BY index DESC LIMIT 1;
    IF NEW.index <> coalesce(before.index + 1, 0)
       OR NEW.predecessor <> coalesce(before.digest, decode(repeat('00', 32), 'hex'))
       OR NEW.kind <> coalesce(before.kind, NEW.kind) THEN
        RAISE EXCEPTION 'entry % of receipt % does not follow the one before it', NEW.index, NEW.chain_id
            USING ERRCODE = 'QX007';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER receipt_entry_follows BEFORE INSERT ON receipt_entry FOR EACH ROW EXECUTE FUNCTION receipt_follows();
CREATE TRIGGER receipt_entry_append_only BEFORE UPDATE OR DELETE ON receipt_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER receipt_entry_no_truncate BEFORE TRUNCATE ON receipt_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
