-- SPDX-License-Identifier: Apache-2.0
-- The network this database was created for (trust.md M8, I11): one row, never changed.

CREATE TABLE network (
    single     boolean PRIMARY KEY DEFAULT true CONSTRAINT network_single CHECK (single),
    name       text NOT NULL CONSTRAINT network_name_unique UNIQUE
               CONSTRAINT network_name_known CHECK (name IN ('devnet', 'test', 'main')),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- SQLSTATEs of our own: QX001 a cause reused with another body, QX002 append-only, QX003 kept by the database alone,
-- QX004 unbalanced, QX005 a transfer that breaks its kind's rule.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused: its rows are append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'QX002';
END $$;

CREATE TRIGGER network_append_only BEFORE UPDATE OR DELETE ON network
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER network_no_truncate BEFORE TRUNCATE ON network
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE FUNCTION current_network() RETURNS text LANGUAGE sql STABLE AS 'SELECT name FROM network';
