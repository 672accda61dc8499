// SPDX-License-Identifier: Apache-2.0
/** Runs kernels on the card, one after the other; a card that is lost is opened again once. Lives in the worker. */

import { Card, lost, wordsOf } from './card';
import { hostOf } from './kernels';
import { room } from './room';
import type { Input } from './kernels/host';
import { forget } from './kernels/matmul';
import { Pace, throwIfAborted } from './pace';
import { GpuError, type Done, type GpuInfo, type Params, type Range } from './port';

/** A browser that has just lost a card may need a moment to find it again. */
const AGAIN_MS = 1_500;

export class Engine {
  readonly pace = new Pace();
  #card: Card | null = null;
  #memoryBytes = 0;
  #last: Promise<unknown> = Promise.resolve();

  /** What could be had at once is tried the first time that anybody asks; after that, nobody waits for what runs. */
  info(): Promise<GpuInfo> {
    const card = this.#card;
    if (card && card.why === null && this.#memoryBytes) return Promise.resolve({ ...card.info, memoryBytes: this.#memoryBytes });
    return this.inTurn(() =>
      this.onCard(async (card) => {
        this.#memoryBytes ||= await room(card, false);
        return { ...card.info, memoryBytes: this.#memoryBytes };
      }),
    );
  }

  /** The same, with every block written to: what was only promised is found out. */
  memory(): Promise<number> {
    return this.inTurn(() => this.onCard(async (card) => (this.#memoryBytes = await room(card, true))));
  }

  run(
    kernel: string,
    params: Params,
    inputs: Readonly<Record<string, Input>>,
    units: Range,
    signal: AbortSignal,
    told: (fraction: number) => void = () => undefined,
  ): Promise<Done> {
    return this.inTurn(() =>
      this.onCard(async (card) => {
        throwIfAborted(signal);
        const host = hostOf(kernel);
        const [since, held] = [performance.now(), this.pace.heldMs];
        const outputs = await host.run({ params, inputs, units }, { card, pace: this.pace, signal, told });
        return { outputs, ms: performance.now() - since - (this.pace.heldMs - held) };
      }),
    );
  }

  /** Nothing else runs meanwhile. */
  inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work, work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  /** `work` is done anew, once, on the card that is opened in place of one that was lost under it. */
  async onCard<T>(work: (card: Card) => Promise<T>): Promise<T> {
    let card = await this.#opened();
    try {
      return await card.watched(() => work(card));
    } catch (problem) {
      if (card.why === null) throw problem;
      card = await this.#again(card.why);
    }
    return card.watched(() => work(card));
  }

  async #opened(): Promise<Card> {
    if (this.#card && this.#card.why === null) return this.#card;
    if (this.#card) return this.#again(this.#card.why ?? '');
    this.#card = await Card.open();
    return this.#card;
  }

  async #again(why: string): Promise<Card> {
    forget();
    try {
      this.#card = await Card.open();
    } catch {
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      try {
        this.#card = await Card.open();
      } catch (problem) {
        this.#card = null;
        throw lost(`${why}; ${wordsOf(problem)}`);
      }
    }
    return this.#card;
  }

  close(): void {
    this.#card?.close();
    this.#card = null;
  }
}

/** Whatever went wrong, as it is told to the page. */
export function failureOf(problem: unknown): GpuError {
  if (problem instanceof GpuError) return problem;
  if (problem instanceof RangeError) return new GpuError('out_of_memory', `The browser has no room for it: ${problem.message}`);
  return new GpuError('internal', wordsOf(problem));
}
