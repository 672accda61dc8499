-- SPDX-License-Identifier: Apache-2.0
-- What ever came into the fees is what is in them now and what has left them: few transfers take from them, and these are
-- found without reading every settlement that was ever made.
CREATE INDEX transfer_out_of_fees ON transfer (id) WHERE kind IN ('fund', 'refund');
