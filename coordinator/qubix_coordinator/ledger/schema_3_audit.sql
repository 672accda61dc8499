-- SPDX-License-Identifier: Apache-2.0
-- What audits found, newest last: for the metrics, whichever process audited.

CREATE TABLE audit_run (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ms      bigint NOT NULL,
    took_ms    bigint NOT NULL CONSTRAINT audit_run_took_time CHECK (took_ms >= 0),
    -- how many findings each check has, by its id; a check without any stands there with 0
    violations jsonb NOT NULL CONSTRAINT audit_run_violations_is_object CHECK (jsonb_typeof(violations) = 'object'),
    unknown    jsonb NOT NULL CONSTRAINT audit_run_unknown_is_object CHECK (jsonb_typeof(unknown) = 'object')
);
CREATE TRIGGER audit_run_append_only BEFORE UPDATE OR DELETE ON audit_run
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
