-- SPDX-License-Identifier: Apache-2.0
-- Double entry in integer QU. The only writer is ledger_post(); what raw SQL could do beside it is refused here.
--
--   ledger_account  one per user, per job's hold, for fees and for the world outside; its balance is kept by triggers
--   transfer        one cause, once; its entries sum to zero
--   entry           append-only legs
--   ledger_pending  credits to fees and world, not yet added to their row: no row is updated by every settlement
--   hold            what happened to the money set aside for a job

CREATE TABLE ledger_account (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind       text NOT NULL CONSTRAINT ledger_account_kind_known CHECK (kind IN ('user', 'hold', 'fees', 'world')),
    -- user: the account; hold: the job; fees and world: nobody
    owner      uuid,
    account_id uuid GENERATED ALWAYS AS (CASE WHEN kind = 'user' THEN owner END) STORED
               CONSTRAINT ledger_account_user_fk REFERENCES account (id),
    balance_qu bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ledger_account_once UNIQUE NULLS NOT DISTINCT (kind, owner),
    CONSTRAINT ledger_account_owner_present CHECK ((owner IS NOT NULL) = (kind IN ('user', 'hold'))),
    CONSTRAINT ledger_account_user_not_negative CHECK (kind <> 'user' OR balance_qu >= 0),
    CONSTRAINT ledger_account_hold_not_negative CHECK (kind <> 'hold' OR balance_qu >= 0),
    CONSTRAINT ledger_account_fees_not_negative CHECK (kind <> 'fees' OR balance_qu >= 0)
);

CREATE TABLE transfer (
    id         uuid PRIMARY KEY,
    kind       text NOT NULL CONSTRAINT transfer_kind_known
               CHECK (kind IN ('development_credit', 'hold', 'settle', 'return', 'refund')),
    cause      text NOT NULL CONSTRAINT transfer_cause_once UNIQUE
               CONSTRAINT transfer_cause_bounded CHECK (length(cause) BETWEEN 1 AND 300),
    job_id     uuid,
    digest     bytea NOT NULL CONSTRAINT transfer_digest_is_sha256 CHECK (octet_length(digest) = 32),
    network    text NOT NULL DEFAULT current_network() CONSTRAINT transfer_network_fk REFERENCES network (name),
    -- set by a trigger: entries join in this transaction or never
    xid        xid8 NOT NULL,
    posted_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT transfer_no_development_credit_on_main CHECK (kind <> 'development_credit' OR network <> 'main'),
    CONSTRAINT transfer_job_present CHECK (job_id IS NOT NULL OR kind IN ('development_credit', 'refund'))
);
CREATE INDEX transfer_by_job ON transfer (job_id) WHERE job_id IS NOT NULL;

CREATE TABLE entry (
    id          bigint GENERATED ALWAYS AS IDENTITY,
    transfer_id uuid NOT NULL CONSTRAINT entry_transfer_fk REFERENCES transfer (id),
    account_id  bigint NOT NULL CONSTRAINT entry_account_fk REFERENCES ledger_account (id),
    amount_qu   bigint NOT NULL
                CONSTRAINT entry_amount_not_zero CHECK (amount_qu <> 0)
                CONSTRAINT entry_amount_bounded CHECK (amount_qu BETWEEN -1000000000000000 AND 1000000000000000),
    PRIMARY KEY (account_id, id),
    CONSTRAINT entry_one_per_account UNIQUE (transfer_id, account_id)
);

CREATE TABLE ledger_pending (
    entry_id   bigint PRIMARY KEY,
    account_id bigint NOT NULL CONSTRAINT ledger_pending_account_fk REFERENCES ledger_account (id),
    amount_qu  bigint NOT NULL,
    CONSTRAINT ledger_pending_entry_fk FOREIGN KEY (account_id, entry_id) REFERENCES entry (account_id, id)
);

CREATE TABLE hold (
    job_id      uuid PRIMARY KEY,
    account_id  bigint NOT NULL CONSTRAINT hold_payer_fk REFERENCES ledger_account (id),
    held_qu     bigint NOT NULL CONSTRAINT hold_positive CHECK (held_qu > 0),
    paid_qu     bigint NOT NULL DEFAULT 0 CONSTRAINT hold_paid_not_negative CHECK (paid_qu >= 0),
    fees_qu     bigint NOT NULL DEFAULT 0 CONSTRAINT hold_fees_not_negative CHECK (fees_qu >= 0),
    returned_qu bigint NOT NULL DEFAULT 0 CONSTRAINT hold_returned_not_negative CHECK (returned_qu >= 0),
    opened_at   timestamptz NOT NULL DEFAULT now(),
    closed_at   timestamptz,
    CONSTRAINT hold_not_overspent CHECK (paid_qu + fees_qu + returned_qu <= held_qu),
    CONSTRAINT hold_closed_when_spent
        CHECK ((closed_at IS NOT NULL) = (paid_qu + fees_qu + returned_qu = held_qu))
);
CREATE INDEX hold_by_payer ON hold (account_id);
CREATE INDEX hold_open ON hold (opened_at) WHERE closed_at IS NULL;

-- Nothing is changed or taken back; what a trigger keeps can be written by a trigger alone.

CREATE FUNCTION refuse_by_hand() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() < 2 THEN
        RAISE EXCEPTION '% on % is refused: the posting triggers alone keep it', TG_OP, TG_TABLE_NAME
            USING ERRCODE = 'QX003';
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;

CREATE FUNCTION stamp_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.xid := pg_current_xact_id();
    RETURN NEW;
END $$;

CREATE FUNCTION refuse_opening_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.balance_qu <> 0 THEN
        RAISE EXCEPTION 'a ledger account starts at zero' USING ERRCODE = 'QX003';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER transfer_stamped BEFORE INSERT ON transfer FOR EACH ROW EXECUTE FUNCTION stamp_transfer();
CREATE TRIGGER transfer_append_only BEFORE UPDATE OR DELETE ON transfer
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER transfer_no_truncate BEFORE TRUNCATE ON transfer
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER entry_append_only BEFORE UPDATE OR DELETE ON entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER entry_no_truncate BEFORE TRUNCATE ON entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_account_opens_at_zero BEFORE INSERT ON ledger_account
    FOR EACH ROW EXECUTE FUNCTION refuse_opening_balance();
CREATE TRIGGER ledger_account_kept BEFORE UPDATE ON ledger_account
    FOR EACH ROW EXECUTE FUNCTION refuse_by_hand();
CREATE TRIGGER ledger_account_no_delete BEFORE DELETE ON ledger_account
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_account_no_truncate BEFORE TRUNCATE ON ledger_account
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER hold_kept BEFORE INSERT OR UPDATE ON hold
    FOR EACH ROW EXECUTE FUNCTION refuse_by_hand();
CREATE TRIGGER hold_no_delete BEFORE DELETE ON hold
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER hold_no_truncate BEFORE TRUNCATE ON hold
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- Deleting pending rows IS sweeping: the trigger below adds them to their account.
CREATE TRIGGER ledger_pending_kept BEFORE INSERT ON ledger_pending
    FOR EACH ROW EXECUTE FUNCTION refuse_by_hand();
CREATE TRIGGER ledger_pending_no_update BEFORE UPDATE ON ledger_pending
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_pending_no_truncate BEFORE TRUNCATE ON ledger_pending
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Each statement that inserts entries moves the balances and the holds with it. All legs of a transfer come in one
-- statement, in the transaction that made the transfer; accounts are locked in the order of their ids.
CREATE FUNCTION entry_posted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    bad uuid;
BEGIN
    SELECT t.id INTO bad FROM transfer t
        WHERE t.id IN (SELECT transfer_id FROM posted) AND t.xid <> pg_current_xact_id() LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transfer % is finished: entries cannot be added to it', bad USING ERRCODE = 'QX002';
    END IF;
    SELECT e.transfer_id INTO bad FROM entry e
        WHERE e.transfer_id IN (SELECT transfer_id FROM posted)
        GROUP BY e.transfer_id HAVING sum(e.amount_qu) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the entries of transfer % do not sum to zero', bad USING ERRCODE = 'QX004';
    END IF;

    PERFORM 1 FROM ledger_account a
        WHERE a.id IN (SELECT account_id FROM posted) AND a.kind IN ('user', 'hold')
        ORDER BY a.id FOR NO KEY UPDATE;
    UPDATE ledger_account a SET balance_qu = a.balance_qu + moved.amount_qu
        FROM (SELECT account_id, sum(amount_qu)::bigint AS amount_qu FROM posted GROUP BY account_id) moved
        WHERE a.id = moved.account_id AND moved.amount_qu <> 0
          AND (a.kind IN ('user', 'hold') OR (a.kind = 'fees' AND moved.amount_qu < 0));
    INSERT INTO ledger_pending (entry_id, account_id, amount_qu)
        SELECT p.id, p.account_id, p.amount_qu
        FROM posted p JOIN ledger_account a ON a.id = p.account_id
        WHERE a.kind = 'world'
           OR (a.kind = 'fees' AND (SELECT sum(q.amount_qu) FROM posted q WHERE q.account_id = p.account_id) >= 0);

    PERFORM hold_moved(t.id, t.kind, t.job_id) FROM transfer t
        WHERE t.id IN (SELECT transfer_id FROM posted) AND t.kind IN ('hold', 'settle', 'return')
        ORDER BY array_position(ARRAY['hold', 'settle', 'return'], t.kind), t.job_id, t.id;
    SELECT t.id INTO bad FROM transfer t JOIN entry e ON e.transfer_id = t.id JOIN ledger_account a ON a.id = e.account_id
        WHERE t.id IN (SELECT transfer_id FROM posted) AND t.kind NOT IN ('hold', 'settle', 'return') AND a.kind = 'hold'
        LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transfer % touches a hold and is not of a kind that may', bad USING ERRCODE = 'QX005';
    END IF;
    RETURN NULL;
END $$;

-- Folds one transfer into its job's hold: hold = user to hold, settle = hold to users and fees, return = hold to payer.
CREATE FUNCTION hold_moved(moved_id uuid, moved_kind text, moved_job uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    leg record;
    payer bigint;
BEGIN
    SELECT coalesce(sum(e.amount_qu) FILTER (WHERE a.kind = 'hold'), 0)::bigint AS hold_qu,
           coalesce(sum(e.amount_qu) FILTER (WHERE a.kind = 'user'), 0)::bigint AS user_qu,
           coalesce(sum(e.amount_qu) FILTER (WHERE a.kind = 'fees'), 0)::bigint AS fees_qu,
           min(e.account_id) FILTER (WHERE a.kind = 'user') AS user_account,
           min(e.amount_qu) FILTER (WHERE a.kind = 'user') AS user_least_qu,
           min(e.amount_qu) FILTER (WHERE a.kind = 'fees') AS fees_least_qu,
           count(*) FILTER (WHERE a.kind = 'user') AS users,
           bool_and(a.kind <> 'world' AND (a.kind <> 'hold' OR a.owner = moved_job)) AS own_hold
        INTO leg
        FROM entry e JOIN ledger_account a ON a.id = e.account_id WHERE e.transfer_id = moved_id;
    IF NOT leg.own_hold OR leg.hold_qu = 0 OR (moved_kind = 'hold') <> (leg.hold_qu > 0) THEN
        RAISE EXCEPTION 'transfer % does not move the hold of its job', moved_id USING ERRCODE = 'QX005';
    END IF;
    IF moved_kind = 'hold' THEN
        IF leg.users <> 1 OR leg.fees_qu <> 0 THEN
            RAISE EXCEPTION 'a hold comes from one user' USING ERRCODE = 'QX005';
        END IF;
        INSERT INTO hold AS h (job_id, account_id, held_qu) VALUES (moved_job, leg.user_account, leg.hold_qu)
            ON CONFLICT (job_id) DO UPDATE SET held_qu = h.held_qu + excluded.held_qu
            WHERE h.closed_at IS NULL AND h.account_id = excluded.account_id;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the hold of job % is closed or another user''s', moved_job USING ERRCODE = 'QX005';
        END IF;
        RETURN;
    END IF;
    IF leg.user_least_qu < 0 OR leg.fees_least_qu < 0 THEN
        RAISE EXCEPTION 'transfer % takes from others than its hold', moved_id USING ERRCODE = 'QX005';
    END IF;
    SELECT account_id INTO payer FROM hold WHERE job_id = moved_job FOR NO KEY UPDATE;
    IF moved_kind = 'return' AND (leg.users <> 1 OR leg.fees_qu <> 0 OR leg.user_account IS DISTINCT FROM payer) THEN
        RAISE EXCEPTION 'a hold is returned to the user who paid it' USING ERRCODE = 'QX005';
    END IF;
    UPDATE hold h SET
        paid_qu = paid_qu + CASE WHEN moved_kind = 'settle' THEN leg.user_qu ELSE 0 END,
        fees_qu = h.fees_qu + leg.fees_qu,
        returned_qu = returned_qu + CASE WHEN moved_kind = 'return' THEN leg.user_qu ELSE 0 END,
        closed_at = CASE WHEN h.paid_qu + h.fees_qu + h.returned_qu - leg.hold_qu = held_qu THEN now() END
        WHERE h.job_id = moved_job;
END $$;

CREATE TRIGGER entry_posted AFTER INSERT ON entry REFERENCING NEW TABLE AS posted
    FOR EACH STATEMENT EXECUTE FUNCTION entry_posted();

-- At commit: a transfer has its legs, and they sum to zero.
CREATE FUNCTION transfer_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    legs bigint;
    total numeric;
BEGIN
    SELECT count(*), coalesce(sum(amount_qu), 0) INTO legs, total FROM entry WHERE transfer_id = NEW.id;
    IF legs < 2 OR total <> 0 THEN
        RAISE EXCEPTION 'transfer % has % entries that sum to %', NEW.id, legs, total USING ERRCODE = 'QX004';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER transfer_balanced AFTER INSERT ON transfer DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION transfer_balanced();

CREATE FUNCTION pending_swept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ledger_account a SET balance_qu = a.balance_qu + gone.amount_qu
        FROM (SELECT account_id, sum(amount_qu)::bigint AS amount_qu FROM swept GROUP BY account_id) gone
        WHERE a.id = gone.account_id;
    RETURN NULL;
END $$;

CREATE TRIGGER ledger_pending_swept AFTER DELETE ON ledger_pending REFERENCING OLD TABLE AS swept
    FOR EACH STATEMENT EXECUTE FUNCTION pending_swept();

CREATE FUNCTION ledger_sweep(rows_max integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    swept_rows integer;
BEGIN
    DELETE FROM ledger_pending WHERE entry_id IN (
        SELECT entry_id FROM ledger_pending ORDER BY entry_id LIMIT rows_max FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS swept_rows = ROW_COUNT;
    RETURN swept_rows;
END $$;

CREATE VIEW ledger_balance AS
    SELECT a.id, a.kind, a.owner,
           (a.balance_qu + CASE WHEN a.kind IN ('fees', 'world') THEN
               coalesce((SELECT sum(p.amount_qu) FROM ledger_pending p WHERE p.account_id = a.id), 0)
               ELSE 0 END)::bigint AS balance_qu
    FROM ledger_account a;

-- Posts [{"id", "kind", "cause", "job", "legs": [{"kind", "owner", "amount"}]}, …]; gives how many were new. A transfer
-- that is there already with the same body is not posted again; with another body: QX001.
CREATE FUNCTION ledger_post(transfers jsonb) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    fresh uuid[];
    reused text;
BEGIN
    WITH added AS (
        INSERT INTO transfer (id, kind, cause, job_id, digest)
        SELECT (t ->> 'id')::uuid, t ->> 'kind', t ->> 'cause', (t ->> 'job')::uuid,
               sha256(convert_to(t::text, 'UTF8'))
        FROM jsonb_array_elements(transfers) AS t
        ORDER BY 1
        ON CONFLICT (id) DO NOTHING
        RETURNING id
    ) SELECT array_agg(id) INTO fresh FROM added;

    IF coalesce(cardinality(fresh), 0) < jsonb_array_length(transfers) THEN
        SELECT t ->> 'cause' INTO reused
            FROM jsonb_array_elements(transfers) AS t JOIN transfer f ON f.id = (t ->> 'id')::uuid
            WHERE f.digest <> sha256(convert_to(t::text, 'UTF8')) LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'cause % was already posted with another body', reused USING ERRCODE = 'QX001';
        END IF;
        IF fresh IS NULL THEN
            RETURN 0;
        END IF;
    END IF;

    INSERT INTO ledger_account (kind, owner)
        SELECT DISTINCT leg ->> 'kind', (leg ->> 'owner')::uuid
        FROM jsonb_array_elements(transfers) AS t, jsonb_array_elements(t -> 'legs') AS leg
        WHERE (t ->> 'id')::uuid = ANY (fresh)
          AND NOT EXISTS (SELECT FROM ledger_account a
                          WHERE a.kind = leg ->> 'kind' AND a.owner IS NOT DISTINCT FROM (leg ->> 'owner')::uuid)
        ORDER BY 1, 2
        ON CONFLICT (kind, owner) DO NOTHING;

    INSERT INTO entry (transfer_id, account_id, amount_qu)
        SELECT t.id, a.id, (leg ->> 'amount')::bigint
        FROM (SELECT DISTINCT ON ((body ->> 'id')::uuid) (body ->> 'id')::uuid AS id, body
              FROM jsonb_array_elements(transfers) AS body
              WHERE (body ->> 'id')::uuid = ANY (fresh)) AS t,
             jsonb_array_elements(t.body -> 'legs') AS leg
             JOIN ledger_account a ON a.kind = leg ->> 'kind' AND a.owner IS NOT DISTINCT FROM (leg ->> 'owner')::uuid;
    RETURN cardinality(fresh);
END $$;
