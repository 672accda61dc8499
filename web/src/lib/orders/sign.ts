// SPDX-License-Identifier: Apache-2.0
/** Signs what this page asks for with this browser's key, where the account has one or needs one (trust M6). */

import { ApiError } from '../api/client';
import type { Kernel } from '../jobs';
import { session } from '../session.svelte';
import { keys as words } from '../strings.keys';
import { hex } from '../../share/net/bytes';
import type { Fields } from '../../share/net/msgpack';
import { held, isOf, list, live } from './keys';
import { statement } from './statement';
import { jobOrder, rentOrder, type JobTerms, type RentTerms } from './statements';

/** The body with its order; the same one while no key of the account signs. Throws ApiError that says how to go on. */
export const signedJob = async <T extends JobTerms>(terms: T, key: string, kernel: Kernel): Promise<T & { order?: string }> =>
  signed(terms, () => jobOrder(key, terms, kernel));
export const signedRent = async <T extends RentTerms>(terms: T, key: string): Promise<T & { order?: string }> =>
  signed(terms, () => rentOrder(key, terms));

async function signed<T extends object>(body: T, message: () => Fields | Promise<Fields>): Promise<T & { order?: string }> {
  const account = session.account;
  if (!account) return body;
  const [browser, listed] = await Promise.all([held(account.account_id), list()]);
  const mine = listed.keys.find((one) => isOf(one, browser));
  if (browser && mine && live(mine)) return { ...body, order: hex(await statement(browser, message)) };
  if (!listed.signed) return body;
  const [text, next] = mine ? [words.revokedHere, words.revokedHereNext] : [words.missing, words.missingNext];
  throw new ApiError(0, 'order_key_missing', text, next, 'order');
}
