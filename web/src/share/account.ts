// SPDX-License-Identifier: Apache-2.0
/**
 * Whose the tab's earnings are. Its key has an account of its own from its first statement on (trust A1); whoever is
 * signed in takes the tab into theirs by a pairing code that never leaves the page (docs/adr/0034).
 */

import { ApiError, post, type Schemas } from '../lib/api/client';
import { session } from '../lib/session.svelte';
import { share as words } from '../lib/strings.share';
import { statement } from '../lib/orders/statement';
import { Database } from './net/database';
import { generate, identityOf } from './net/keys';
import type { Fields } from './net/msgpack';

const MEDIA = 'application/msgpack';

/** Signs in to the account of this tab's key. Throws ApiError. */
export async function openAccount(): Promise<void> {
  const { token } = await said<Schemas['SignedInView']>('/key/sign-in', (clock_ms) => ({ t: 'key_sign_in', name: words.account.device, clock_ms }));
  await session.begin(token);
}

/** The tab works for the account that is signed in from now on. Throws ApiError. */
export async function pair(): Promise<void> {
  const { code, pairing } = await post<Schemas['PairingMadeView']>('/pairings', { name: words.account.device });
  const { fingerprint } = await said<Schemas['NodePairingView']>('/nodes/pair', (clock_ms) => ({ t: 'pair', code, clock_ms }));
  // The key and the session are both here: nobody else can have come in between.
  await post(`/pairings/${pairing.pairing_id}/confirm`, { fingerprint });
}

/** A statement of the tab's key, to the market that this page is of. */
async function said<T>(path: string, message: (clockMs: number) => Fields): Promise<T> {
  const raw = await statement(await identityOf(await (await Database.open()).keyPair(generate)), message);
  const answer = await fetch(`/api/v1${path}`, { method: 'POST', headers: { 'Content-Type': MEDIA, Accept: 'application/json' }, body: raw, credentials: 'same-origin' });
  const told = (await answer.json()) as T & { code?: string; detail?: string; remedy?: string };
  if (!answer.ok) throw new ApiError(answer.status, told.code ?? '', told.detail ?? answer.statusText, told.remedy ?? '', '');
  return told;
}
