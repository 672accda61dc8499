-- SPDX-License-Identifier: Apache-2.0
-- What a provider did, newest first (GET /account/work).

CREATE INDEX attempt_by_provider ON attempt (peer_id, created_ms DESC, id DESC) WHERE started_ms IS NOT NULL;
CREATE INDEX rental_by_provider ON rental (peer_id, created_ms DESC, id DESC) WHERE started_ms IS NOT NULL;
