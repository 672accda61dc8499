-- SPDX-License-Identifier: Apache-2.0
-- Money that comes and goes by the chain, bonds of disputes, and the fund that pays when nobody else can.
--
--   withdrawal  QU set aside for one withdrawal, until the chain has paid it out or it is given back
--   bond        QU posted for one dispute
--   fund        one row: what awards are paid from that no party owes

ALTER TABLE ledger_account
    DROP CONSTRAINT ledger_account_kind_known,
    ADD CONSTRAINT ledger_account_kind_known CHECK (kind IN ('user', 'hold', 'withdrawal', 'bond', 'fund', 'fees', 'world')),
    DROP CONSTRAINT ledger_account_owner_present,
    ADD CONSTRAINT ledger_account_owner_present
        CHECK ((owner IS NOT NULL) = (kind IN ('user', 'hold', 'withdrawal', 'bond'))),
    ADD CONSTRAINT ledger_account_withdrawal_not_negative CHECK (kind <> 'withdrawal' OR balance_qu >= 0),
    ADD CONSTRAINT ledger_account_bond_not_negative CHECK (kind <> 'bond' OR balance_qu >= 0),
    ADD CONSTRAINT ledger_account_fund_not_negative CHECK (kind <> 'fund' OR balance_qu >= 0);

ALTER TABLE transfer
    DROP CONSTRAINT transfer_kind_known,
    ADD CONSTRAINT transfer_kind_known CHECK (kind IN (
        'development_credit', 'hold', 'settle', 'return', 'refund',
        'deposit', 'withdraw', 'withdraw_sent', 'withdraw_back', 'bond', 'bond_end', 'fund')),
    DROP CONSTRAINT transfer_job_present,
    ADD CONSTRAINT transfer_job_present CHECK (job_id IS NOT NULL OR kind NOT IN ('hold', 'settle', 'return'));

-- Where the money of each kind that moves no hold comes from, and where it may go: one payer, one kind of payee or more.
CREATE FUNCTION transfer_way(kind text, OUT payers text[], OUT payees text[]) LANGUAGE sql IMMUTABLE AS $$
    SELECT way.payers, way.payees FROM (VALUES
        ('development_credit', ARRAY['world'], ARRAY['user']),
        ('deposit', ARRAY['world'], ARRAY['user']),
        ('refund', ARRAY['user', 'fees', 'fund'], ARRAY['user']),
        ('withdraw', ARRAY['user'], ARRAY['withdrawal']),
        ('withdraw_sent', ARRAY['withdrawal'], ARRAY['world']),
        ('withdraw_back', ARRAY['withdrawal'], ARRAY['user']),
        ('bond', ARRAY['user'], ARRAY['bond']),
        ('bond_end', ARRAY['bond'], ARRAY['user', 'fund']),
        ('fund', ARRAY['fees'], ARRAY['fund'])
    ) AS way (kind, payers, payees) WHERE way.kind = transfer_way.kind
$$;

-- As before, with the new kinds of accounts, and each kind of transfer held to its way.
CREATE OR REPLACE FUNCTION entry_posted() RETURNS trigger LANGUAGE plpgsql AS $$
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
        WHERE a.id IN (SELECT account_id FROM posted) AND a.kind NOT IN ('fees', 'world')
        ORDER BY a.id FOR NO KEY UPDATE;
    UPDATE ledger_account a SET balance_qu = a.balance_qu + moved.amount_qu
        FROM (SELECT account_id, sum(amount_qu)::bigint AS amount_qu FROM posted GROUP BY account_id) moved
        WHERE a.id = moved.account_id AND moved.amount_qu <> 0
          AND (a.kind NOT IN ('fees', 'world') OR (a.kind = 'fees' AND moved.amount_qu < 0));
    INSERT INTO ledger_pending (entry_id, account_id, amount_qu)
        SELECT p.id, p.account_id, p.amount_qu
        FROM posted p JOIN ledger_account a ON a.id = p.account_id
        WHERE a.kind = 'world'
           OR (a.kind = 'fees' AND (SELECT sum(q.amount_qu) FROM posted q WHERE q.account_id = p.account_id) >= 0);

    PERFORM hold_moved(t.id, t.kind, t.job_id) FROM transfer t
        WHERE t.id IN (SELECT transfer_id FROM posted) AND t.kind IN ('hold', 'settle', 'return')
        ORDER BY array_position(ARRAY['hold', 'settle', 'return'], t.kind), t.job_id, t.id;
    SELECT t.id INTO bad FROM transfer t
        JOIN entry e ON e.transfer_id = t.id JOIN ledger_account a ON a.id = e.account_id
        CROSS JOIN LATERAL transfer_way(t.kind) AS way
        WHERE t.id IN (SELECT transfer_id FROM posted) AND t.kind NOT IN ('hold', 'settle', 'return')
        GROUP BY t.id, way.payers, way.payees
        HAVING count(*) FILTER (WHERE e.amount_qu < 0) <> 1
            OR bool_or(a.kind <> ALL (CASE WHEN e.amount_qu < 0 THEN way.payers ELSE way.payees END)) IS NOT FALSE
        LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transfer % goes a way that its kind does not', bad USING ERRCODE = 'QX005';
    END IF;
    RETURN NULL;
END $$;
