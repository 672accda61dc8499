// SPDX-License-Identifier: Apache-2.0
/** What others ask for the like, and so what this card might. Pure but for the asking. */

import { get, type Listing, type Schemas } from '../lib/api/client';

/** Where nothing like it is offered: a hundredth of what a worker on a machine of its own asks by default. */
export const FLOOR_QU_PER_H = 1_000;
const ALIKE_MIN = 1;
const SCORED_MIN = 3;

export interface Suggestion {
  rateQuPerH: number;
  /** What it is the median of. `score`: QU for each GFLOP/s, times what this card does. */
  basis: 'model' | 'browser' | 'score' | 'floor';
  offers: number;
}

export interface Own {
  peerId: string;
  model: string;
  /** Of the matrix product as measured here; 0: not yet. */
  gflops: number;
}

/** Of an even number the higher one in the middle, so that it is a price that somebody asks. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

export function suggested(listings: readonly Listing[], own: Own): Suggestion {
  const others = listings.filter((one) => one.provider !== own.peerId && one.rate_qu_per_h > 0 && one.availability !== 'offline');
  const tabs = others.filter((one) => one.kind === 'webgpu');
  const alike = tabs.filter((one) => one.model === own.model);
  if (alike.length >= ALIKE_MIN) return { rateQuPerH: median(alike.map((one) => one.rate_qu_per_h)), basis: 'model', offers: alike.length };
  const scored = others.filter((one) => one.score > 0);
  if (own.gflops > 0 && scored.length >= SCORED_MIN) {
    const perGflops = median(scored.map((one) => one.rate_qu_per_h / one.score));
    return { rateQuPerH: Math.max(1, Math.round(perGflops * own.gflops)), basis: 'score', offers: scored.length };
  }
  if (tabs.length) return { rateQuPerH: median(tabs.map((one) => one.rate_qu_per_h)), basis: 'browser', offers: tabs.length };
  return { rateQuPerH: FLOOR_QU_PER_H, basis: 'floor', offers: 0 };
}

/** In the order of their ids, which prices know nothing of: a part of a large market is a fair sample of it. */
export async function asked(own: Own, signal?: AbortSignal): Promise<Suggestion> {
  const view = await get<Schemas['OffersView']>(`/offers?${new URLSearchParams({ order: 'listing' })}`, signal);
  return suggested(view.offers, own);
}
