-- SPDX-License-Identifier: Apache-2.0
-- Arbiters decide disputes; their tokens open nothing else.

ALTER TABLE api_token
    DROP CONSTRAINT api_token_scopes_known,
    ADD CONSTRAINT api_token_scopes_known CHECK (scopes <@ ARRAY['user', 'operator', 'gateway', 'arbiter']),
    DROP CONSTRAINT api_token_scopes_some,
    ADD CONSTRAINT api_token_scopes_some CHECK (cardinality(scopes) BETWEEN 1 AND 4);
