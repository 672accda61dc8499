// SPDX-License-Identifier: Apache-2.0
/**
 * Work on a card in pieces: short enough that a page beside it stays smooth and that stopping is quick, and with rests in
 * between where only a share of the card is given.
 */

import { GpuError } from './port';

/** A piece aims at this long: a screen's frame or two, and much longer than what a dispatch costs besides. */
export const TARGET_MS = 24;
const GROWTH_MAX = 8;
const WINDOW_MS = 5_000;

/** How the next piece is sized by how long the last one took. Pure. */
export const nextSize = (size: number, tookMs: number): number =>
  Math.max(1, Math.floor(size * Math.min(GROWTH_MAX, TARGET_MS / Math.max(tookMs, 0.1))));

/** How long to rest after so much work. Pure. */
export const restMs = (workedMs: number, share: number): number => workedMs * (1 / share - 1);

export class Pace {
  /** How long it was held, all in all. */
  heldMs = 0;
  /** No rests, whatever the share. */
  full = false;
  #share = 1;
  #held: Promise<void> | null = null;
  #release: () => void = () => undefined;
  #spans: [from: number, to: number][] = [];

  /** Over 0 to 1. */
  set share(value: number) {
    this.#share = Math.min(1, Math.max(0.05, value));
  }
  get share(): number {
    return this.#share;
  }

  hold(on: boolean): void {
    if (on === (this.#held !== null)) return;
    if (on) this.#held = new Promise((resolve) => (this.#release = resolve));
    else {
      this.#held = null;
      this.#release();
    }
  }

  /** Before each piece. */
  async go(signal: AbortSignal): Promise<void> {
    const since = performance.now();
    while (this.#held && !signal.aborted) await Promise.race([this.#held, aborted(signal)]);
    this.heldMs += performance.now() - since;
    throwIfAborted(signal);
  }

  /** After each piece. */
  async rest(from: number, to: number, signal: AbortSignal): Promise<void> {
    this.#spans.push([from, to]);
    const stale = to - WINDOW_MS;
    while (this.#spans[0] && this.#spans[0][1] < stale) this.#spans.shift();
    const rest = this.full ? 0 : restMs(to - from, this.#share);
    if (rest > 0) await Promise.race([new Promise((resolve) => setTimeout(resolve, rest)), aborted(signal)]);
    throwIfAborted(signal);
  }

  utilisation(now = performance.now()): number {
    const since = now - WINDOW_MS;
    const busy = this.#spans.reduce((sum, [from, to]) => sum + Math.max(0, to - Math.max(from, since)), 0);
    return Math.min(1, busy / WINDOW_MS);
  }
}

export function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw new GpuError('aborted', 'it was stopped');
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
