-- SPDX-License-Identifier: Apache-2.0
-- A node may say that a device is rented to one consumer.

ALTER TABLE listing
    DROP CONSTRAINT listing_availability_known,
    ADD CONSTRAINT listing_availability_known
        CHECK (availability IN ('available', 'busy', 'rented', 'draining', 'offline'));
