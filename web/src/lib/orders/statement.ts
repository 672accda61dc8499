// SPDX-License-Identifier: Apache-2.0
/** A statement of a key of this browser, to the market that this page is of and to nobody else. */

import { get, type Schemas } from '../api/client';
import { unhex, type Bytes } from '../../share/net/bytes';
import { seal } from '../../share/net/envelope';
import type { Identity } from '../../share/net/keys';
import type { Fields } from '../../share/net/msgpack';

const LIFE_MS = 60_000;

/** `message` is told the market's clock. Throws ApiError. */
export async function statement(key: Identity, message: (clockMs: number) => Fields | Promise<Fields>): Promise<Bytes> {
  const market = await get<Schemas['NetworkView']>('/network');
  return seal(await message(market.clock_ms), key, {
    network: market.network,
    audience: unhex(market.coordinator_key),
    incarnation: 0,
    counter: crypto.getRandomValues(new Uint32Array(1))[0]!,
    expiresMs: market.clock_ms + LIFE_MS,
  });
}
