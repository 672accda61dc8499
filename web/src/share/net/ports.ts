// SPDX-License-Identifier: Apache-2.0
/** What sharing needs of the browser. */

import { Database } from './database';
import type { Journal } from './journal';
import { PageTicker, WorkerTicker, type Ticker } from './ticker';

const LOCK = 'qubix-provider';
/** A page that is reloaded gives the lock back when all of it is gone, which a busy machine takes its time for. */
const LOCK_MS = 8_000;

/** What a test puts in the place of the browser's own. */
export interface Ports {
  origin: string;
  journal(): Promise<Journal>;
  ticker: Ticker;
  fetch: typeof fetch;
  /** `run` is called when the page goes, and has until it returns; the answer ends that. */
  leaving(run: () => void): () => void;
  /** Held as long as this tab shares; null: another tab has it. */
  lock(): Promise<(() => void) | null>;
}

export function browserPorts(): Ports {
  return {
    origin: location.origin,
    journal: () => Database.open(),
    ticker: typeof Worker === 'undefined' ? new PageTicker() : new WorkerTicker(),
    fetch: (...words) => fetch(...words),
    leaving: (run) => {
      addEventListener('pagehide', run);
      return () => removeEventListener('pagehide', run);
    },
    lock: heldLock,
  };
}

/** Of all tabs of this browser one shares: they have the same key. A page that is reloaded gives it back a moment later. */
function heldLock(): Promise<(() => void) | null> {
  if (navigator.locks === undefined) return Promise.resolve(() => undefined);
  return new Promise((resolve) => {
    navigator.locks
      .request(LOCK, { signal: AbortSignal.timeout(LOCK_MS) }, () => new Promise<void>((release) => resolve(release)))
      .catch(() => resolve(null));
  });
}
