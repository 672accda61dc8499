-- SPDX-License-Identifier: Apache-2.0
-- The query line by which its consumer says which devices a job may go to; '' for any.

ALTER TABLE job ADD COLUMN wanted text NOT NULL DEFAULT '' CONSTRAINT job_wanted_bounded CHECK (length(wanted) <= 2000);
