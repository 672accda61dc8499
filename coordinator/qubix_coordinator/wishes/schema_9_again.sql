-- SPDX-License-Identifier: Apache-2.0
-- A node that refuses a wish may do so for a reason that passes: it is asked again, each time after a longer while.

ALTER TABLE device_wish
    ADD COLUMN refusals integer NOT NULL DEFAULT 0 CONSTRAINT device_wish_refusals_count CHECK (refusals >= 0),
    -- when it is told again; null: it was not refused
    ADD COLUMN again_ms bigint CONSTRAINT device_wish_again_after_refusal CHECK (again_ms IS NULL OR refusals > 0);

UPDATE device_wish SET refusals = 1, again_ms = 0 WHERE problem <> '' AND taken_revision = revision;

CREATE INDEX device_wish_refused ON device_wish (again_ms) WHERE again_ms IS NOT NULL;
