-- SPDX-License-Identifier: Apache-2.0
-- Whether two accounts are related is asked at every settlement: by what ever had to do with each (see outcomes.py).

CREATE INDEX payout_address_by_account ON payout_address (account_id);
CREATE INDEX payment_proof_by_account ON payment_proof (account_id) WHERE proved_at IS NOT NULL;
