-- SPDX-License-Identifier: Apache-2.0
-- QU on their way out. The money itself is the ledger's, in an account of its own for each withdrawal; what is here is held
-- to it. Times are milliseconds by the coordinator's clock, keys 32 bytes.
--
--   payout_address  where an account's QU may go: nothing else is ever paid
--   withdrawal      one order, from the reservation to its end
--   withdrawal_tx   every transaction signed for it: what was signed never changes, its outcome is written once
--   payout_order    an account's standing order
--   hot_wallet      the paying identity, as the chain process sees it

CREATE TABLE payout_address (
    id         uuid PRIMARY KEY,
    account_id uuid NOT NULL CONSTRAINT payout_address_account_fk REFERENCES account (id),
    public_key bytea NOT NULL CONSTRAINT payout_address_is_a_key CHECK (octet_length(public_key) = 32)
               CONSTRAINT payout_address_not_null_or_contract
               CHECK (substr(public_key, 9) <> '\x000000000000000000000000000000000000000000000000'::bytea),
    label      text NOT NULL CONSTRAINT payout_address_label_bounded CHECK (length(label) <= 100),
    added_ms   bigint NOT NULL,
    usable_ms  bigint NOT NULL,
    removed_ms bigint,
    CONSTRAINT payout_address_usable_after_added CHECK (usable_ms >= added_ms)
);
CREATE UNIQUE INDEX payout_address_once ON payout_address (account_id, public_key) WHERE removed_ms IS NULL;

CREATE TABLE hot_wallet (
    public_key    bytea PRIMARY KEY CONSTRAINT hot_wallet_is_a_key CHECK (octet_length(public_key) = 32),
    balance_qu    bigint NOT NULL CONSTRAINT hot_wallet_not_negative CHECK (balance_qu >= 0),
    tick          bigint NOT NULL,
    epoch         bigint NOT NULL,
    room          boolean NOT NULL,
    seen_ms       bigint NOT NULL,
    -- what is wrong since when; '' while the network answers
    problem       text NOT NULL CONSTRAINT hot_wallet_problem_bounded CHECK (length(problem) <= 500),
    problem_ms    bigint
);

CREATE SEQUENCE withdrawal_no;

CREATE TABLE withdrawal (
    id              uuid PRIMARY KEY,
    -- the order in which they came
    no              bigint NOT NULL CONSTRAINT withdrawal_no_unique UNIQUE,
    account_id      uuid NOT NULL CONSTRAINT withdrawal_account_fk REFERENCES account (id),
    idempotency_key text NOT NULL CONSTRAINT withdrawal_key_bounded CHECK (length(idempotency_key) BETWEEN 1 AND 200),
    address_id      uuid NOT NULL CONSTRAINT withdrawal_address_fk REFERENCES payout_address (id),
    destination     bytea NOT NULL CONSTRAINT withdrawal_destination_is_a_key CHECK (octet_length(destination) = 32),
    amount_qu       bigint NOT NULL
                    CONSTRAINT withdrawal_amount_bounded CHECK (amount_qu BETWEEN 1 AND 1000000000000000),
    network         text NOT NULL DEFAULT current_network()
                    CONSTRAINT withdrawal_network_fk REFERENCES network (name),
    automatic       boolean NOT NULL,
    state           text NOT NULL CONSTRAINT withdrawal_state_known CHECK
                    (state IN ('waiting', 'signed', 'broadcast', 'confirmed', 'cancelled', 'refused', 'failed')),
    reason          text NOT NULL,
    detail          text NOT NULL CONSTRAINT withdrawal_detail_bounded CHECK (length(detail) <= 2000),
    revision        bigint NOT NULL,
    tries           integer NOT NULL DEFAULT 0 CONSTRAINT withdrawal_tries_count CHECK (tries >= 0),
    approved_by     uuid CONSTRAINT withdrawal_approver_fk REFERENCES account (id),
    approved_ms     bigint,
    created_ms      bigint NOT NULL,
    not_before_ms   bigint NOT NULL,
    -- when the time to be sent is over
    late_ms         bigint NOT NULL,
    due_ms          bigint,
    ended_ms        bigint,
    CONSTRAINT withdrawal_idempotent UNIQUE (account_id, idempotency_key),
    CONSTRAINT withdrawal_approved_by_somebody CHECK ((approved_by IS NULL) = (approved_ms IS NULL)),
    -- trust M5: what is not final has a deadline
    CONSTRAINT withdrawal_due_while_open
        CHECK ((due_ms IS NOT NULL) = (state IN ('waiting', 'signed', 'broadcast'))),
    CONSTRAINT withdrawal_ended_when_final
        CHECK ((ended_ms IS NULL) = (state IN ('waiting', 'signed', 'broadcast')))
);
CREATE INDEX withdrawal_by_account ON withdrawal (account_id, no DESC);
CREATE INDEX withdrawal_waiting ON withdrawal (no) WHERE state = 'waiting';
CREATE INDEX withdrawal_due ON withdrawal (due_ms) WHERE due_ms IS NOT NULL;

CREATE TABLE withdrawal_tx (
    tx_id          text PRIMARY KEY CONSTRAINT withdrawal_tx_id_shape CHECK (tx_id ~ '^[a-z]{60}$'),
    withdrawal_id  uuid NOT NULL CONSTRAINT withdrawal_tx_withdrawal_fk REFERENCES withdrawal (id),
    no             integer NOT NULL CONSTRAINT withdrawal_tx_counts CHECK (no >= 1),
    hot_key        bytea NOT NULL CONSTRAINT withdrawal_tx_wallet_fk REFERENCES hot_wallet (public_key),
    destination    bytea NOT NULL,
    amount_qu      bigint NOT NULL,
    signed_bytes   bytea NOT NULL
                   CONSTRAINT withdrawal_tx_bytes_bounded CHECK (octet_length(signed_bytes) BETWEEN 144 AND 1168),
    tick           bigint NOT NULL,
    epoch          bigint NOT NULL,
    -- what the paying identity had paid out before, as of the live tick known_tick
    outgoing_qu    bigint NOT NULL,
    outgoing_count bigint NOT NULL,
    known_tick     bigint NOT NULL CONSTRAINT withdrawal_tx_aims_ahead CHECK (tick > known_tick),
    signed_ms      bigint NOT NULL,
    outcome        text CONSTRAINT withdrawal_tx_outcome_known CHECK (outcome IN ('paid', 'expired', 'moved_nothing')),
    decided_ms     bigint,
    evidence       jsonb,
    CONSTRAINT withdrawal_tx_numbered UNIQUE (withdrawal_id, no),
    CONSTRAINT withdrawal_tx_decided_with_evidence
        CHECK ((outcome IS NULL) = (decided_ms IS NULL) AND (outcome IS NULL) = (evidence IS NULL))
);
-- Trust I9: one signed transaction that may run or has run, for each reservation.
CREATE UNIQUE INDEX withdrawal_tx_one_live ON withdrawal_tx (withdrawal_id) WHERE outcome IS NULL OR outcome = 'paid';
-- Trust Q2: one transaction in flight for each hot identity.
CREATE UNIQUE INDEX withdrawal_tx_one_in_flight ON withdrawal_tx (hot_key) WHERE outcome IS NULL;
CREATE INDEX withdrawal_tx_by_time ON withdrawal_tx (signed_ms);

CREATE TABLE payout_order (
    account_id  uuid PRIMARY KEY CONSTRAINT payout_order_account_fk REFERENCES account (id),
    -- another standing order of the same account is another one: its withdrawals are counted anew
    id          uuid NOT NULL CONSTRAINT payout_order_id_unique UNIQUE,
    address_id  uuid NOT NULL CONSTRAINT payout_order_address_fk REFERENCES payout_address (id),
    keep_qu     bigint NOT NULL CONSTRAINT payout_order_keep_bounded CHECK (keep_qu BETWEEN 0 AND 1000000000000000),
    least_qu    bigint NOT NULL CONSTRAINT payout_order_least_bounded CHECK (least_qu BETWEEN 1 AND 1000000000000000),
    since_ms    bigint NOT NULL,
    made        bigint NOT NULL DEFAULT 0 CONSTRAINT payout_order_counts CHECK (made >= 0),
    next_ms     bigint NOT NULL,
    problem     text NOT NULL DEFAULT '' CONSTRAINT payout_order_problem_bounded CHECK (length(problem) <= 500)
);
CREATE INDEX payout_order_next ON payout_order (next_ms);

-- What was ordered never changes, and what is over is over.
CREATE FUNCTION withdrawal_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.ended_ms IS NOT NULL THEN
        RAISE EXCEPTION 'withdrawal % has ended: it does not change any more', OLD.id USING ERRCODE = 'QX006';
    END IF;
    IF (NEW.id, NEW.no, NEW.account_id, NEW.idempotency_key, NEW.address_id, NEW.destination, NEW.amount_qu, NEW.network,
        NEW.automatic, NEW.created_ms, NEW.late_ms)
       IS DISTINCT FROM
       (OLD.id, OLD.no, OLD.account_id, OLD.idempotency_key, OLD.address_id, OLD.destination, OLD.amount_qu, OLD.network,
        OLD.automatic, OLD.created_ms, OLD.late_ms) THEN
        RAISE EXCEPTION 'what withdrawal % orders does not change', OLD.id USING ERRCODE = 'QX006';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER withdrawal_kept BEFORE UPDATE ON withdrawal FOR EACH ROW EXECUTE FUNCTION withdrawal_kept();
CREATE TRIGGER withdrawal_no_delete BEFORE DELETE ON withdrawal FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER withdrawal_no_truncate BEFORE TRUNCATE ON withdrawal FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- To an address of the same account that stands on its list, which need not be usable yet.
CREATE FUNCTION withdrawal_allowed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM payout_address a WHERE a.id = NEW.address_id AND a.account_id = NEW.account_id
        AND a.public_key = NEW.destination AND a.removed_ms IS NULL AND a.usable_ms <= NEW.not_before_ms;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'withdrawal % goes to no address of its account', NEW.id USING ERRCODE = 'QX006';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER withdrawal_allowed BEFORE INSERT ON withdrawal FOR EACH ROW EXECUTE FUNCTION withdrawal_allowed();

-- At commit: what is open is covered by the ledger to the last QU, what has ended is not; one that is on its way has a live
-- transaction, and no other has.
CREATE FUNCTION check_withdrawal(checked uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    now_is withdrawal;
    held_qu bigint;
    outcome_is text;
BEGIN
    SELECT * INTO now_is FROM withdrawal WHERE id = checked;
    SELECT coalesce(sum(balance_qu), 0) INTO held_qu FROM ledger_account WHERE kind = 'withdrawal' AND owner = checked;
    IF held_qu <> (CASE WHEN now_is.ended_ms IS NULL THEN now_is.amount_qu ELSE 0 END) THEN
        RAISE EXCEPTION 'withdrawal % (%) of % QU has % QU set aside', checked, now_is.state, now_is.amount_qu, held_qu
            USING ERRCODE = 'QX006';
    END IF;
    SELECT coalesce(t.outcome, 'live') INTO outcome_is FROM withdrawal_tx t
        WHERE t.withdrawal_id = checked AND (t.outcome IS NULL OR t.outcome = 'paid');
    IF outcome_is IS DISTINCT FROM (CASE now_is.state WHEN 'signed' THEN 'live' WHEN 'broadcast' THEN 'live'
                                         WHEN 'confirmed' THEN 'paid' END) THEN
        RAISE EXCEPTION 'withdrawal % is %, and its transaction is %', checked, now_is.state, coalesce(outcome_is, 'none')
            USING ERRCODE = 'QX006';
    END IF;
    IF (now_is.state = 'confirmed') <> EXISTS (SELECT FROM transfer WHERE cause = 'withdraw_sent:' || checked) THEN
        RAISE EXCEPTION 'withdrawal % is %, and the ledger says otherwise', checked, now_is.state USING ERRCODE = 'QX006';
    END IF;
END $$;
CREATE FUNCTION withdrawal_covered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM check_withdrawal(NEW.id);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER withdrawal_covered AFTER INSERT OR UPDATE ON withdrawal DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION withdrawal_covered();
CREATE FUNCTION withdrawal_tx_covered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM check_withdrawal(NEW.withdrawal_id);
    RETURN NULL;
END $$;

-- A transaction is signed for what its withdrawal orders, while that waits, or while its state is set with it.
CREATE FUNCTION withdrawal_tx_fits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM withdrawal w WHERE w.id = NEW.withdrawal_id AND w.destination = NEW.destination
        AND w.amount_qu = NEW.amount_qu AND w.state = 'waiting' AND NEW.outcome IS NULL AND NEW.no = w.tries + 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'transaction % is not what withdrawal % orders now', NEW.tx_id, NEW.withdrawal_id
            USING ERRCODE = 'QX006';
    END IF;
    IF substr(NEW.signed_bytes, 1, 32) <> NEW.hot_key OR substr(NEW.signed_bytes, 33, 32) <> NEW.destination THEN
        RAISE EXCEPTION 'the bytes of transaction % name other keys', NEW.tx_id USING ERRCODE = 'QX006';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER withdrawal_tx_fits BEFORE INSERT ON withdrawal_tx FOR EACH ROW EXECUTE FUNCTION withdrawal_tx_fits();

CREATE FUNCTION withdrawal_tx_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.tx_id, NEW.withdrawal_id, NEW.no, NEW.hot_key, NEW.destination, NEW.amount_qu, NEW.signed_bytes, NEW.tick, NEW.epoch,
        NEW.outgoing_qu, NEW.outgoing_count, NEW.known_tick, NEW.signed_ms)
       IS DISTINCT FROM
       (OLD.tx_id, OLD.withdrawal_id, OLD.no, OLD.hot_key, OLD.destination, OLD.amount_qu, OLD.signed_bytes, OLD.tick, OLD.epoch,
        OLD.outgoing_qu, OLD.outgoing_count, OLD.known_tick, OLD.signed_ms)
       -- The one second word there is: what was taken for dead has run.
       OR (OLD.outcome IS NOT NULL AND NEW.outcome IS DISTINCT FROM 'paid') THEN
        RAISE EXCEPTION 'transaction % is signed: it does not change', OLD.tx_id USING ERRCODE = 'QX006';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER withdrawal_tx_kept BEFORE UPDATE ON withdrawal_tx FOR EACH ROW EXECUTE FUNCTION withdrawal_tx_kept();
CREATE TRIGGER withdrawal_tx_no_delete BEFORE DELETE ON withdrawal_tx
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER withdrawal_tx_no_truncate BEFORE TRUNCATE ON withdrawal_tx
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE CONSTRAINT TRIGGER withdrawal_tx_covered AFTER INSERT OR UPDATE ON withdrawal_tx DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION withdrawal_tx_covered();
