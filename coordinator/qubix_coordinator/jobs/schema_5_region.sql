-- SPDX-License-Identifier: Apache-2.0
-- Where its consumer would rather have a job run; '' for anywhere.

ALTER TABLE job ADD COLUMN region text NOT NULL DEFAULT '' CONSTRAINT job_region_bounded CHECK (length(region) <= 200);
