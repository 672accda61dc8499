-- SPDX-License-Identifier: Apache-2.0
-- How much of a provider's work was proven, asked at every delivery that nobody checks: its newest good pieces, and the
-- last wrong one, which for an honest provider is never found by looking through everything that it did.

CREATE INDEX work_outcome_right ON work_outcome (provider_id, no) WHERE what = 'right' AND counts;
CREATE INDEX work_outcome_wrong ON work_outcome (provider_id, no) WHERE what IN ('wrong', 'dispute_lost');
DROP INDEX work_outcome_by_provider;
