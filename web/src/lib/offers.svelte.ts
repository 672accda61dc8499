// SPDX-License-Identifier: Apache-2.0
/** The market as this page holds it: plain objects, and one rune that says that something changed. */

import { feed, type Frame } from './feed.svelte';
import { get, type Listing, type Schemas } from './api/client';

type Delta = Schemas['MarketDelta'];
const TINT_MS = 4000;
const PAGE = 200;
const PAGE_MS = 5000;

/** Deltas come up to ten times a second; the table is drawn once a frame at most. */
export class Offers {
  version = $state(0);
  /** Counts up when the rows are others than before, or of other models or places. */
  members = $state(0);
  /** More match than are told live: `rows` are the first of them, read again and again. */
  partial = $state(false);
  /** null until the first snapshot. */
  total = $state<number | null>(null);
  rows = new Map<string, Listing>();
  /** Which way a price went, for a moment. */
  moved = new Map<string, 'up' | 'down'>();
  #drawing = false;
  #sorted: Listing[] = [];
  #order = '';
  #others = false;
  /** What moved since the rows were last put in order; null: all of it. */
  #changed: Set<string> | null = null;
  #page: (() => void) | null = null;

  /** `order` is asked for again whenever it matters. */
  watch(query: string, order: () => string): () => void {
    this.total = null;
    this.partial = false;
    const over = new AbortController();
    const leave = feed.watch(query ? { topic: 'market', query } : { topic: 'market' }, (frame) => {
      if (frame.kind === 'refused') void this.#readOn(query, order, over.signal);
      else this.#take(frame);
    });
    return () => {
      leave();
      over.abort();
      this.#page?.();
    };
  }

  /** The first page at once, if that is what is read. */
  readAgain(): void {
    this.#page?.();
  }

  async #readOn(query: string, order: () => string, over: AbortSignal): Promise<void> {
    this.partial = true;
    while (!over.aborted) {
      const asked = new URLSearchParams({ q: query, order: order(), limit: String(PAGE) });
      try {
        const { offers } = await get<Schemas['OffersView']>(`/offers?${asked}`, over);
        this.#take({ topic: '', kind: 'snapshot', cursor: '0', data: offers });
      } catch {
        // The last page stays; the next one may come.
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, PAGE_MS);
        this.#page = () => (clearTimeout(timer), resolve());
      });
    }
    this.#page = null;
  }

  /** One listing alone. */
  watchOne(id: string): () => void {
    this.total = null;
    return feed.watch({ topic: `listing:${id}` }, (frame) => this.#take(frame));
  }

  #take(frame: Frame): void {
    if (frame.kind === 'snapshot') {
      this.rows = new Map();
      this.#others = true;
      this.moved.clear();
      this.#changed = null;
    }
    if (frame.kind === 'snapshot' || frame.kind === 'more') this.#put(frame.data as Listing[], false);
    else if (frame.kind === 'delta') this.#change(frame.data as Delta);
    else return;
    // A snapshot is whole once its cursor is there.
    if (this.total === null && !frame.cursor) return;
    this.#ask();
  }

  #ask(): void {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => this.#draw());
  }

  /** By `key` or `key-`. A change moves its own row alone: ten times a second, all rows would be too many to sort. */
  inOrder(order: string): Listing[] {
    if (order !== this.#order || this.#changed === null) this.#sorted = sorted(this.rows.values(), order);
    else if (this.#changed.size) this.#sorted = moved(this.#sorted, this.#changed, this.rows, order);
    this.#order = order;
    this.#changed = new Set();
    return this.#sorted;
  }

  #change(delta: Delta): void {
    for (const id of delta.gone) {
      this.rows.delete(id);
      this.#changed?.add(id);
      this.#others = true;
    }
    this.#put(delta.listings, true);
  }

  #put(listings: Listing[], news: boolean): void {
    for (const one of listings) {
      const before = this.rows.get(one.listing_id);
      if (news && before && before.rate_qu_per_h !== one.rate_qu_per_h) this.#tint(one, before);
      if (before?.model !== one.model || before.region !== one.region) this.#others = true;
      this.rows.set(one.listing_id, one);
      this.#changed?.add(one.listing_id);
    }
  }

  #tint(one: Listing, before: Listing): void {
    this.moved.set(one.listing_id, one.rate_qu_per_h > before.rate_qu_per_h ? 'up' : 'down');
    setTimeout(() => {
      this.moved.delete(one.listing_id);
      this.#ask();
    }, TINT_MS);
  }

  #draw(): void {
    this.#drawing = false;
    if (this.#others) this.members += 1;
    this.#others = false;
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

/** What stands under one another in one cell of the table, which all fits a laptop so. */
export const stacks: Column[][] = [['model', 'memory'], ['price'], ['score', 'perQu'], ['reliability'], ['place', 'net'], ['backend', 'software'], ['state', 'use']].map(
  (ids) => ids.map((id) => columns.find((one) => one.id === id)!),
);

/** The listing's id settles what is equal, so that rows keep their places. */
function comparison(order: string): (a: Listing, b: Listing) => number {
  const sign = order.endsWith('-') ? -1 : 1;
  const { value } = columns.find((one) => one.key === order.replace(/-$/, '')) ?? columns[2]!;
  return (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x !== y) return x < y ? -sign : sign;
    return a.listing_id < b.listing_id ? -1 : 1;
  };
}

/** By `key` or `key-`. */
export const sorted = (rows: Iterable<Listing>, order: string): Listing[] => [...rows].sort(comparison(order));

/** Rows in order, in which those that changed have new places, or none. */
function moved(rows: Listing[], changed: Set<string>, now: Map<string, Listing>, order: string): Listing[] {
  const compare = comparison(order);
  const kept = rows.filter((one) => !changed.has(one.listing_id));
  const fresh = [...changed].flatMap((id) => now.get(id) ?? []).sort(compare);
  const all: Listing[] = [];
  let at = 0;
  for (const one of fresh) {
    const place = placeOf(one, kept, at, compare);
    for (; at < place; at += 1) all.push(kept[at]!);
    all.push(one);
  }
  for (; at < kept.length; at += 1) all.push(kept[at]!);
  return all;
}

/** How many of `rows` stand before it. */
function placeOf(one: Listing, rows: Listing[], from: number, compare: (a: Listing, b: Listing) => number): number {
  let [low, high] = [from, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (compare(rows[middle]!, one) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
