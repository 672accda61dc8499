// SPDX-License-Identifier: Apache-2.0
/**
 * Time that goes on in the background: browsers slow the timers of a page that nobody looks at to one in a minute, and a
 * node that beats no more is given up after ten seconds. Timers of a worker keep their pace.
 */

export interface Ticker {
  /** By a clock that nobody sets. */
  nowMs(): number;
  /** Rejects with the signal's reason when that is aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  close(): void;
}

export class WorkerTicker implements Ticker {
  readonly #worker = new Worker(new URL('./ticker.worker.ts', import.meta.url), { type: 'module' });
  readonly #waiting = new Map<number, () => void>();
  #next = 0;

  constructor() {
    this.#worker.onmessage = (event: MessageEvent<number>) => {
      this.#waiting.get(event.data)?.();
      this.#waiting.delete(event.data);
    };
  }

  nowMs(): number {
    return performance.now();
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return sleeping(signal, (wake) => {
      const id = (this.#next += 1);
      this.#waiting.set(id, wake);
      this.#worker.postMessage({ id, ms });
      return () => this.#waiting.delete(id);
    });
  }

  close(): void {
    this.#worker.terminate();
  }
}

/** The page's own timers. */
export class PageTicker implements Ticker {
  nowMs(): number {
    return performance.now();
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return sleeping(signal, (wake) => {
      const timer = setTimeout(wake, ms);
      return () => clearTimeout(timer);
    });
  }

  close(): void {}
}

function sleeping(signal: AbortSignal | undefined, begin: (wake: () => void) => () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason as Error);
      return;
    }
    const stopped = (): void => {
      end();
      reject(signal?.reason as Error);
    };
    const end = begin(() => {
      signal?.removeEventListener('abort', stopped);
      resolve();
    });
    signal?.addEventListener('abort', stopped, { once: true });
  });
}
