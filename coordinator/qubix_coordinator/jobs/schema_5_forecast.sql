-- SPDX-License-Identifier: Apache-2.0
-- What an attempt was forecast to take by its device's rates alone, before anything was learned; and beside its run.

ALTER TABLE attempt
    ADD COLUMN rated_ms double precision CONSTRAINT attempt_rated_not_negative CHECK (rated_ms >= 0),
    ADD COLUMN around_ms double precision CONSTRAINT attempt_around_not_negative CHECK (around_ms >= 0),
    ADD COLUMN pace double precision CONSTRAINT attempt_pace_not_negative CHECK (pace >= 0);
