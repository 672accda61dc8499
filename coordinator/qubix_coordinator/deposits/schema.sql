-- SPDX-License-Identifier: Apache-2.0
-- QU that come in from the chain (trust.md Q1). Keys are 32 bytes, amounts whole QU, moments milliseconds by our clock.
--
--   chain_lease       one row: whose turn it is to act on the chain; a number that only grows
--   chain_state       one row: how the network looks from here, and how far deposits are read
--   treasury          the identities that hold users' QU, and what the network says is on them
--   deposit_identity  the pool: public keys that the chain process derives from its master secret, each for one account
--   deposit           one payment to one of them
--   sweep             signed transfers from deposit identities to the hot identity; they move no ledger money

CREATE TABLE chain_lease (
    single boolean PRIMARY KEY DEFAULT true CONSTRAINT chain_lease_single CHECK (single),
    fence  bigint NOT NULL CONSTRAINT chain_lease_counts CHECK (fence >= 0)
);
INSERT INTO chain_lease (fence) VALUES (0);

CREATE TABLE chain_state (
    single         boolean PRIMARY KEY DEFAULT true CONSTRAINT chain_state_single CHECK (single),
    state          text NOT NULL CONSTRAINT chain_state_known
                   CHECK (state IN ('starting', 'ok', 'behind', 'unreachable', 'untrusted', 'refused')),
    problem        text NOT NULL CONSTRAINT chain_state_problem_bounded CHECK (length(problem) <= 500),
    since_ms       bigint NOT NULL,
    checked_ms     bigint NOT NULL,
    live_tick      bigint,
    epoch          bigint,
    processed_tick bigint,
    -- every tick up to this one has been read and its payments are in `deposit`; NULL until the first look
    cursor_tick    bigint CONSTRAINT chain_state_cursor_not_negative CHECK (cursor_tick >= 0),
    CONSTRAINT chain_state_problem_named CHECK ((problem = '') = (state IN ('starting', 'ok')))
);
INSERT INTO chain_state (state, problem, since_ms, checked_ms) VALUES ('starting', '', 0, 0);

CREATE FUNCTION chain_cursor_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.cursor_tick IS NOT NULL AND (NEW.cursor_tick IS NULL OR NEW.cursor_tick < OLD.cursor_tick) THEN
        RAISE EXCEPTION 'the tick cursor only moves forward' USING ERRCODE = 'QX002';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER chain_cursor_forward BEFORE UPDATE ON chain_state
    FOR EACH ROW EXECUTE FUNCTION chain_cursor_forward();

CREATE TABLE treasury (
    public_key     bytea PRIMARY KEY CONSTRAINT treasury_is_a_key CHECK (octet_length(public_key) = 32),
    role           text NOT NULL CONSTRAINT treasury_role_known CHECK (role IN ('hot', 'deposit')),
    -- how the keys follow from the master secret; of the hot identity alone
    derivation     integer CONSTRAINT treasury_derivation_of_hot CHECK ((derivation IS NOT NULL) = (role = 'hot')),
    balance_qu     bigint NOT NULL DEFAULT 0 CONSTRAINT treasury_not_negative CHECK (balance_qu >= 0),
    incoming_qu    bigint NOT NULL DEFAULT 0,
    outgoing_qu    bigint NOT NULL DEFAULT 0,
    outgoing_count bigint NOT NULL DEFAULT 0,
    tick           bigint NOT NULL DEFAULT 0,
    checked_at     timestamptz
);
-- A database belongs to one master secret for ever.
CREATE UNIQUE INDEX treasury_one_hot ON treasury (role) WHERE role = 'hot';
CREATE TRIGGER treasury_no_delete BEFORE DELETE ON treasury FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER treasury_no_truncate BEFORE TRUNCATE ON treasury FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE FUNCTION treasury_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.public_key, OLD.role, OLD.derivation) IS DISTINCT FROM (NEW.public_key, NEW.role, NEW.derivation) THEN
        RAISE EXCEPTION 'an identity of the treasury stays what it is' USING ERRCODE = 'QX002';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER treasury_kept BEFORE UPDATE ON treasury FOR EACH ROW EXECUTE FUNCTION treasury_kept();

CREATE TABLE deposit_identity (
    no          integer PRIMARY KEY CONSTRAINT deposit_identity_counts CHECK (no >= 0),
    public_key  bytea NOT NULL CONSTRAINT deposit_identity_unique UNIQUE
                CONSTRAINT deposit_identity_is_a_key CHECK (octet_length(public_key) = 32),
    account_id  uuid CONSTRAINT deposit_identity_one_per_account UNIQUE
                CONSTRAINT deposit_identity_account_fk REFERENCES account (id),
    assigned_at timestamptz,
    CONSTRAINT deposit_identity_assigned CHECK ((account_id IS NULL) = (assigned_at IS NULL))
);
CREATE INDEX deposit_identity_free ON deposit_identity (no) WHERE account_id IS NULL;
CREATE FUNCTION deposit_identity_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.account_id IS NOT NULL OR (OLD.no, OLD.public_key) IS DISTINCT FROM (NEW.no, NEW.public_key) THEN
        RAISE EXCEPTION 'a deposit identity belongs to one account for ever' USING ERRCODE = 'QX002';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER deposit_identity_kept BEFORE UPDATE ON deposit_identity
    FOR EACH ROW EXECUTE FUNCTION deposit_identity_kept();
CREATE TRIGGER deposit_identity_no_delete BEFORE DELETE ON deposit_identity
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER deposit_identity_no_truncate BEFORE TRUNCATE ON deposit_identity
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE sweep (
    id             uuid PRIMARY KEY,
    identity_no    integer NOT NULL CONSTRAINT sweep_identity_fk REFERENCES deposit_identity (no),
    tx_id          text NOT NULL CONSTRAINT sweep_tx_unique UNIQUE CONSTRAINT sweep_tx_shape CHECK (tx_id ~ '^[a-z]{60}$'),
    raw            bytea NOT NULL CONSTRAINT sweep_raw_bounded CHECK (octet_length(raw) BETWEEN 144 AND 1168),
    amount_qu      bigint NOT NULL CONSTRAINT sweep_amount_bounded CHECK (amount_qu BETWEEN 1 AND 1000000000000000),
    -- what it takes along: every deposit of its identity up to this tick
    covers_tick    bigint NOT NULL,
    tick           bigint NOT NULL CONSTRAINT sweep_aims_ahead CHECK (tick > covers_tick),
    outgoing_qu    bigint NOT NULL,
    outgoing_count bigint NOT NULL,
    state          text NOT NULL CONSTRAINT sweep_state_known CHECK (state IN ('live', 'done', 'dead')),
    problem        text NOT NULL DEFAULT '' CONSTRAINT sweep_problem_bounded CHECK (length(problem) <= 500),
    signed_ms      bigint NOT NULL,
    sent_ms        bigint,
    ended_ms       bigint,
    CONSTRAINT sweep_ended_when_final CHECK ((ended_ms IS NULL) = (state = 'live'))
);
-- At most one that may still run for each identity (as I9 for withdrawals).
CREATE UNIQUE INDEX sweep_one_live ON sweep (identity_no) WHERE state = 'live';
CREATE INDEX sweep_by_identity ON sweep (identity_no, tick);
CREATE FUNCTION sweep_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'live' OR (OLD.id, OLD.identity_no, OLD.tx_id, OLD.raw, OLD.amount_qu, OLD.covers_tick, OLD.tick,
        OLD.outgoing_qu, OLD.outgoing_count, OLD.signed_ms) IS DISTINCT FROM (NEW.id, NEW.identity_no, NEW.tx_id, NEW.raw,
        NEW.amount_qu, NEW.covers_tick, NEW.tick, NEW.outgoing_qu, NEW.outgoing_count, NEW.signed_ms) THEN
        RAISE EXCEPTION 'sweep % is signed: it does not change', OLD.tx_id USING ERRCODE = 'QX002';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER sweep_kept BEFORE UPDATE ON sweep FOR EACH ROW EXECUTE FUNCTION sweep_kept();
CREATE TRIGGER sweep_no_delete BEFORE DELETE ON sweep FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER sweep_no_truncate BEFORE TRUNCATE ON sweep FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE deposit (
    id          uuid PRIMARY KEY,
    no          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT deposit_no_unique UNIQUE,
    network     text NOT NULL DEFAULT current_network() CONSTRAINT deposit_network_fk REFERENCES network (name),
    tick        bigint NOT NULL CONSTRAINT deposit_tick_counts CHECK (tick >= 0),
    tx_id       text NOT NULL CONSTRAINT deposit_tx_shape CHECK (tx_id ~ '^[a-z]{60}$'),
    output      integer NOT NULL CONSTRAINT deposit_output_counts CHECK (output BETWEEN 0 AND 24),
    identity_no integer NOT NULL CONSTRAINT deposit_identity_fk REFERENCES deposit_identity (no),
    account_id  uuid NOT NULL CONSTRAINT deposit_account_fk REFERENCES account (id),
    source      bytea NOT NULL CONSTRAINT deposit_source_is_a_key CHECK (octet_length(source) = 32),
    amount_qu   bigint NOT NULL CONSTRAINT deposit_amount_bounded CHECK (amount_qu BETWEEN 1 AND 1000000000000000),
    evidence    text NOT NULL CONSTRAINT deposit_evidence_known CHECK (evidence IN ('event_log', 'money_flew')),
    state       text NOT NULL CONSTRAINT deposit_state_known CHECK (state IN ('seen', 'credited', 'swept')),
    reason      text NOT NULL CONSTRAINT deposit_reason_known CHECK (reason IN ('', 'below_minimum')),
    transfer_id uuid CONSTRAINT deposit_transfer_fk REFERENCES transfer (id)
                CONSTRAINT deposit_transfer_once UNIQUE,
    sweep_id    uuid CONSTRAINT deposit_sweep_fk REFERENCES sweep (id),
    seen_ms     bigint NOT NULL,
    -- Q1: one payment is one row, whoever tells of it and however often
    CONSTRAINT deposit_once UNIQUE (network, tick, tx_id, output),
    CONSTRAINT deposit_credited_in_the_ledger CHECK ((transfer_id IS NOT NULL) = (state IN ('credited', 'swept'))),
    CONSTRAINT deposit_reason_when_not_credited CHECK ((reason <> '') = (state = 'seen')),
    CONSTRAINT deposit_swept_by_a_sweep CHECK (state <> 'swept' OR sweep_id IS NOT NULL)
);
CREATE INDEX deposit_by_account ON deposit (account_id, no DESC);
CREATE INDEX deposit_unswept ON deposit (identity_no, tick) WHERE state = 'credited';

-- A payment belongs to whom its identity does, and only its state changes, forwards.
CREATE FUNCTION deposit_fits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM deposit_identity i WHERE i.no = NEW.identity_no AND i.account_id = NEW.account_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'deposit % is not to an identity of its account', NEW.tx_id USING ERRCODE = 'QX002';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER deposit_fits BEFORE INSERT ON deposit FOR EACH ROW EXECUTE FUNCTION deposit_fits();
CREATE FUNCTION deposit_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.id, OLD.network, OLD.tick, OLD.tx_id, OLD.output, OLD.identity_no, OLD.account_id, OLD.source, OLD.amount_qu,
        OLD.evidence, OLD.seen_ms) IS DISTINCT FROM (NEW.id, NEW.network, NEW.tick, NEW.tx_id, NEW.output, NEW.identity_no,
        NEW.account_id, NEW.source, NEW.amount_qu, NEW.evidence, NEW.seen_ms)
        OR (OLD.transfer_id IS NOT NULL AND NEW.transfer_id IS DISTINCT FROM OLD.transfer_id)
        OR (OLD.state = 'swept' AND NEW.state <> 'swept') THEN
        RAISE EXCEPTION 'deposit % does not change that way', OLD.tx_id USING ERRCODE = 'QX002';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER deposit_kept BEFORE UPDATE ON deposit FOR EACH ROW EXECUTE FUNCTION deposit_kept();
CREATE TRIGGER deposit_no_delete BEFORE DELETE ON deposit FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER deposit_no_truncate BEFORE TRUNCATE ON deposit FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
