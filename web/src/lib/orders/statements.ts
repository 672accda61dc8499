// SPDX-License-Identifier: Apache-2.0
/** What an order key signs, field by field as `qubix_protocol.messages` has it: an order is compared with its request. */

import type { Kernel } from '../jobs';
import { unhex, type Bytes } from '../../share/net/bytes';
import * as digests from '../../share/net/digests';
import { Float, type Decoded, type Fields } from '../../share/net/msgpack';

/** The body of `POST /jobs`, as far as it is signed. */
export interface JobTerms {
  kernel: string;
  params: { [name: string]: unknown };
  inputs: { [name: string]: { digest: string; size_bytes: number; meta: { dtype: string; shape: number[] } | null } };
  cap_qu: number;
  rate_qu_per_h_max?: number | null;
  rental?: string | null;
}
/** The body of `POST /rentals`, as far as it is signed. */
export interface RentTerms {
  listing_id: string;
  seconds: number;
  rate_qu_per_h_max?: number | null;
  cap_qu?: number | null;
  more?: string[];
  count?: number;
}

/** Every parameter with its default, in its exact kind, as the market reads the JSON of `said` (`Kernel.normalise`). */
export function normalParams(kernel: Kernel, said: { [name: string]: unknown }): { [name: string]: Decoded } {
  return Object.fromEntries(kernel.params.map(({ name, kind, default: other }) => [name, exact(kind, said[name] ?? other)]));
}

function exact(kind: string, value: unknown): Decoded {
  // JSON has no -0: what is sent is 0.
  if (kind === 'float') return new Float(Number(value) + 0);
  if (typeof value === 'number') return Number.isSafeInteger(value) ? value : BigInt(value);
  return value as Decoded;
}

export async function jobOrder(key: string, terms: JobTerms, kernel: Kernel): Promise<Fields> {
  const inputs = Object.entries(terms.inputs).map(([name, one]) => {
    if (!one.meta) throw new RangeError(`the input ${name} is no array`);
    return { name, digest: unhex(one.digest), sizeBytes: one.size_bytes, ...one.meta };
  });
  return {
    t: 'order',
    idempotency_key: key,
    kernel: terms.kernel,
    params_digest: await digests.ofParams(normalParams(kernel, terms.params)),
    inputs_digest: await digests.ofInputs(inputs),
    cap_qu: terms.cap_qu,
    rate_qu_per_h_max: terms.rate_qu_per_h_max ?? null,
    rental: terms.rental ?? null,
  };
}

export const rentOrder = (key: string, terms: RentTerms): Fields => ({
  t: 'rent_order',
  idempotency_key: key,
  listing_id: terms.listing_id,
  seconds: terms.seconds,
  rate_qu_per_h_max: terms.rate_qu_per_h_max ?? null,
  cap_qu: terms.cap_qu ?? null,
  more: terms.more ?? [],
  count: terms.count ?? 1,
});

export const keyRequest = (accountId: string, name: string, clockMs: number): Fields => ({
  t: 'order_key_request',
  account_id: accountId,
  kind: 'browser',
  name,
  clock_ms: clockMs,
});

export const walletApproval = (accountId: string, identity: string): Fields => ({ t: 'wallet_approval', account_id: accountId, identity });

export const keyRevocation = (accountId: string, publicKey: Bytes): Fields => ({
  t: 'order_key_revocation',
  account_id: accountId,
  public_key: publicKey,
});
