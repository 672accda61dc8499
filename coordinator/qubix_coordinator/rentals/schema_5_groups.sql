-- SPDX-License-Identifier: Apache-2.0
-- Several devices of one node rented together: a rental each, made all or none in one transaction. From then on each
-- goes its own way: it is metered, settled and ended by itself.

CREATE TABLE rental_group (
    id         uuid PRIMARY KEY,
    account_id uuid NOT NULL CONSTRAINT rental_group_account_fk REFERENCES account (id),
    peer_id    text NOT NULL CONSTRAINT rental_group_node_fk REFERENCES node (peer_id),
    devices    integer NOT NULL CONSTRAINT rental_group_of_several CHECK (devices BETWEEN 2 AND 64),
    created_ms bigint NOT NULL,
    CONSTRAINT rental_group_of_one_owner UNIQUE (id, account_id, peer_id)
);

ALTER TABLE rental
    ADD COLUMN group_id uuid,
    -- its place in the group; the request's key is theirs together
    ADD COLUMN member integer NOT NULL DEFAULT 0 CONSTRAINT rental_member_counts CHECK (member BETWEEN 0 AND 63),
    ADD CONSTRAINT rental_group_fk FOREIGN KEY (group_id, account_id, peer_id)
        REFERENCES rental_group (id, account_id, peer_id),
    ADD CONSTRAINT rental_alone_is_first CHECK (group_id IS NOT NULL OR member = 0),
    DROP CONSTRAINT rental_idempotent,
    ADD CONSTRAINT rental_idempotent UNIQUE (account_id, idempotency_key, member),
    ADD CONSTRAINT rental_member_once UNIQUE (group_id, member);
