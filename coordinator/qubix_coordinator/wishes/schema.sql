-- SPDX-License-Identifier: Apache-2.0
-- What the owner of a device wants of it, and what its node said of that: wished and reported apart.

CREATE TABLE device_wish (
    peer_id        text NOT NULL CONSTRAINT device_wish_node_fk REFERENCES node (peer_id),
    device_id      text NOT NULL CONSTRAINT device_wish_device_bounded CHECK (length(device_id) BETWEEN 1 AND 200),
    revision       bigint NOT NULL CONSTRAINT device_wish_revision_counts CHECK (revision >= 1),
    rate_qu_per_h  bigint CONSTRAINT device_wish_rate_bounded CHECK (rate_qu_per_h BETWEEN 0 AND 1000000000000),
    paused         boolean NOT NULL,
    free_ms        bigint CONSTRAINT device_wish_free_not_negative CHECK (free_ms >= 0),
    why            text NOT NULL CONSTRAINT device_wish_why_bounded CHECK (length(why) <= 200),
    wished_by      uuid NOT NULL CONSTRAINT device_wish_account_fk REFERENCES account (id),
    wished_ms      bigint NOT NULL,
    -- the newest revision that the node spoke of, and what it said
    taken_revision bigint,
    taken_ms       bigint,
    problem        text NOT NULL DEFAULT '' CONSTRAINT device_wish_problem_bounded CHECK (length(problem) <= 200),
    PRIMARY KEY (peer_id, device_id),
    CONSTRAINT device_wish_taken_after_wished CHECK (taken_revision BETWEEN 1 AND revision),
    CONSTRAINT device_wish_taken_at_a_time CHECK ((taken_ms IS NULL) = (taken_revision IS NULL))
);
CREATE INDEX device_wish_open ON device_wish (peer_id) WHERE taken_revision IS DISTINCT FROM revision;
