-- SPDX-License-Identifier: Apache-2.0
-- The market's fee is one of the terms that an assignment freezes. Attempts from before have none: theirs is the setting.

ALTER TABLE attempt ADD COLUMN fee_bps integer CONSTRAINT attempt_fee_bps_bounded CHECK (fee_bps BETWEEN 0 AND 10000);
