-- SPDX-License-Identifier: Apache-2.0
-- A failed spot check takes a provider's new earnings; what that brings, and a part of the fees, pays for spot checks.

ALTER TABLE transfer
    DROP CONSTRAINT transfer_kind_known,
    ADD CONSTRAINT transfer_kind_known CHECK (kind IN (
        'development_credit', 'hold', 'settle', 'return', 'refund', 'deposit', 'withdraw', 'withdraw_sent',
        'withdraw_back', 'bond', 'bond_end', 'fund', 'spot', 'spot_back', 'forfeit'));

CREATE OR REPLACE FUNCTION transfer_way(kind text, OUT payers text[], OUT payees text[]) LANGUAGE sql IMMUTABLE AS $$
    SELECT way.payers, way.payees FROM (VALUES
        ('development_credit', ARRAY['world'], ARRAY['user']),
        ('deposit', ARRAY['world'], ARRAY['user']),
        ('refund', ARRAY['user', 'fees', 'fund'], ARRAY['user']),
        ('withdraw', ARRAY['user'], ARRAY['withdrawal']),
        ('withdraw_sent', ARRAY['withdrawal'], ARRAY['world']),
        ('withdraw_back', ARRAY['withdrawal'], ARRAY['user']),
        ('bond', ARRAY['user'], ARRAY['bond']),
        ('bond_end', ARRAY['bond'], ARRAY['user', 'fund']),
        ('fund', ARRAY['fees'], ARRAY['fund']),
        ('spot', ARRAY['fund'], ARRAY['user']),
        ('spot_back', ARRAY['user'], ARRAY['fund']),
        ('forfeit', ARRAY['user'], ARRAY['fund'])
    ) AS way (kind, payers, payees) WHERE way.kind = transfer_way.kind
$$;
