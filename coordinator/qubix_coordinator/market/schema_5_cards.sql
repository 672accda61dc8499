-- SPDX-License-Identifier: Apache-2.0
-- Who else offers the same card: asked with each offer of a GPU.

CREATE INDEX listing_card_idx ON listing (device_id) WHERE kind = 'cuda';
