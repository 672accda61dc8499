-- SPDX-License-Identifier: Apache-2.0
-- Events in the order (xid, id). A reader takes only rows whose transaction is older than every running one, so that a
-- transaction that commits late can never slip in behind a cursor that has already passed.

CREATE TABLE event (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid        xid8 NOT NULL DEFAULT pg_current_xact_id(),
    topic      text NOT NULL CONSTRAINT event_topic_shape CHECK (topic ~ '^[A-Za-z0-9_.:-]{1,120}$'),
    payload    jsonb NOT NULL CONSTRAINT event_payload_bounded CHECK (pg_column_size(payload) <= 262144),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX event_order ON event (xid, id);
CREATE INDEX event_age ON event (created_at);

-- The last position that pruning took away: a cursor before it has missed events.
CREATE TABLE event_horizon (
    single boolean PRIMARY KEY DEFAULT true CONSTRAINT event_horizon_single CHECK (single),
    xid    xid8 NOT NULL,
    id     bigint NOT NULL
);
INSERT INTO event_horizon (xid, id) VALUES ('0', 0);
