// SPDX-License-Identifier: Apache-2.0
/** The market as this page holds it: plain objects, and one rune that says that something changed. */

import { feed, type Frame } from './feed.svelte';
import type { Listing, Schemas } from './api/client';

type Delta = Schemas['MarketDelta'];
const TINT_MS = 4000;

/** Deltas come up to ten times a second; the table is drawn once a frame at most. */
export class Offers {
  version = $state(0);
  /** null until the first snapshot. */
  total = $state<number | null>(null);
  rows = new Map<string, Listing>();
  /** Which way a price went, for a moment. */
  moved = new Map<string, 'up' | 'down'>();
  #drawing = false;

  watch(query: string): () => void {
    this.total = null;
    return feed.watch(query ? { topic: 'market', query } : { topic: 'market' }, (frame) => this.#take(frame));
  }

  /** One listing alone. */
  watchOne(id: string): () => void {
    this.total = null;
    return feed.watch({ topic: `listing:${id}` }, (frame) => this.#take(frame));
  }

  #take(frame: Frame): void {
    if (frame.kind === 'snapshot') {
      this.rows = new Map();
      this.moved.clear();
    }
    if (frame.kind === 'snapshot' || frame.kind === 'more') this.#put(frame.data as Listing[], false);
    else if (frame.kind === 'delta') this.#change(frame.data as Delta);
    else return;
    // A snapshot is whole once its cursor is there.
    if (this.#drawing || (this.total === null && !frame.cursor)) return;
    this.#drawing = true;
    requestAnimationFrame(() => this.#draw());
  }

  #change(delta: Delta): void {
    for (const id of delta.gone) this.rows.delete(id);
    this.#put(delta.listings, true);
  }

  #put(listings: Listing[], news: boolean): void {
    for (const one of listings) {
      const before = this.rows.get(one.listing_id);
      if (news && before && before.rate_qu_per_h !== one.rate_qu_per_h) this.#tint(one, before);
      this.rows.set(one.listing_id, one);
    }
  }

  #tint(one: Listing, before: Listing): void {
    this.moved.set(one.listing_id, one.rate_qu_per_h > before.rate_qu_per_h ? 'up' : 'down');
    setTimeout(() => {
      this.moved.delete(one.listing_id);
      this.version += 1;
    }, TINT_MS);
  }

  #draw(): void {
    this.#drawing = false;
    this.total = this.rows.size;
    this.version += 1;
  }
}

export interface Column {
  id: string;
  /** What the table is sorted by: the query language's field. */
  key: string;
  value: (one: Listing) => number | string;
  numeric: boolean;
}

export const perQu = (one: Listing): number => (one.score && one.rate_qu_per_h ? one.score / one.rate_qu_per_h : 0);
export const use = (one: Listing): number | null => one.metrics?.utilisation_pct ?? null;

export const columns: Column[] = [
  { id: 'model', key: 'gpu_name', value: (one) => one.model.toLowerCase(), numeric: false },
  { id: 'memory', key: 'gpu_ram', value: (one) => one.memory_bytes, numeric: true },
  { id: 'price', key: 'price', value: (one) => one.rate_qu_per_h, numeric: true },
  { id: 'score', key: 'score', value: (one) => one.score, numeric: true },
  { id: 'perQu', key: 'score_per_qu', value: perQu, numeric: true },
  { id: 'reliability', key: 'reliability', value: (one) => one.reliability, numeric: true },
  { id: 'place', key: 'region', value: (one) => one.country || one.region, numeric: false },
  { id: 'net', key: 'inet_down', value: (one) => one.inet_down_bytes_per_s, numeric: true },
  { id: 'software', key: 'driver_version', value: (one) => one.driver, numeric: false },
  { id: 'backend', key: 'backend', value: (one) => one.backends.join(' '), numeric: false },
  { id: 'state', key: 'availability', value: (one) => one.availability, numeric: false },
  { id: 'use', key: 'utilisation', value: (one) => use(one) ?? -1, numeric: true },
];

/** By `key` or `key-`; the listing's id settles what is equal, so that rows keep their places. */
export function sorted(rows: Iterable<Listing>, order: string): Listing[] {
  const down = order.endsWith('-');
  const column = columns.find((one) => one.key === order.replace(/-$/, '')) ?? columns[2]!;
  const sign = down ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    if (x !== y) return x < y ? -sign : sign;
    return a.listing_id < b.listing_id ? -1 : 1;
  });
}
