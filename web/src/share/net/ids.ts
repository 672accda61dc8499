// SPDX-License-Identifier: Apache-2.0
/** Names that both sides make alike. */

import { concat, hex, unhex, utf8 } from './bytes';

const NAMESPACE = unhex('6f1d3f0e5d0b5f7a9d3c0b1c7a3a9b11');

/** The same in every session of the same key: there is one GPU to a tab. */
export const deviceIdOf = (peerId: string): string => `webgpu-${peerId.slice(-8)}`;

/** As the market makes it (`market.service.listing_id`): a UUID of version 5. */
export async function listingIdOf(peerId: string, deviceId: string): Promise<string> {
  const named = concat(NAMESPACE, utf8(`${peerId}/${deviceId}`));
  const made = new Uint8Array(await crypto.subtle.digest('SHA-1', named)).slice(0, 16);
  made[6] = ((made[6] ?? 0) & 0x0f) | 0x50;
  made[8] = ((made[8] ?? 0) & 0x3f) | 0x80;
  const text = hex(made);
  return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join('-');
}
