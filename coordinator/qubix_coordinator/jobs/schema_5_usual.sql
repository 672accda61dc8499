-- SPDX-License-Identifier: Apache-2.0
-- What an attempt was forecast to take by its device's history, without its state of the hour.

ALTER TABLE attempt
    ADD COLUMN usual_ms double precision CONSTRAINT attempt_usual_not_negative CHECK (usual_ms >= 0),
    ADD COLUMN usual_around_ms double precision CONSTRAINT attempt_usual_around_not_negative CHECK (usual_around_ms >= 0);
