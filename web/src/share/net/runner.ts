// SPDX-License-Identifier: Apache-2.0
/** Runs one attempt on the GPU: inputs, chunks, outputs, links. It decides nothing; `work.abort` ends it. */

import { GpuError, type Gpu, type NpyArray, type Params } from '../gpu/port';
import { packArrays, readNpy } from './arrays';
import { sha256 } from './bytes';
import { NoStorage } from './idb';
import type { Journal, Sending } from './journal';
import { progress, type InputRef, type Range } from './messages';
import { Float, type Decoded } from './msgpack';
import type { Outbox } from './outbox';
import { COMPLETED, failed, nextChunk, paced, type Verdict } from './rules';
import { StoreFailed, type Store } from './store';
import type { Ticker } from './ticker';
import type { Work } from './work';

export class Runner {
  readonly #gpu: Gpu;
  readonly #store: Store;
  readonly #journal: Journal;
  readonly #outbox: Outbox;
  readonly #ticker: Ticker;

  constructor(gpu: Gpu, store: Store, journal: Journal, outbox: Outbox, ticker: Ticker) {
    this.#gpu = gpu;
    this.#store = store;
    this.#journal = journal;
    this.#outbox = outbox;
    this.#ticker = ticker;
  }

  /** How it ended. `moved` is called at each step that others may want to know of. */
  async run(work: Work, moved: () => void): Promise<Verdict> {
    try {
      const inputs: Record<string, NpyArray> = {};
      for (const ref of work.assign.inputs) inputs[ref.name] = await this.#input(work, ref);
      await this.#compute(work, paramsOf(work.assign.params), inputs, moved);
      return COMPLETED;
    } catch (problem) {
      if (problem instanceof StoreFailed || problem instanceof GpuError) return failed(problem.code, problem.message);
      if (problem instanceof NoStorage) return failed('disk', 'the browser has no room for the result');
      if (work.abort.signal.aborted) return failed('stopped', '');
      return failed('internal', String(problem));
    }
  }

  async #input(work: Work, ref: InputRef): Promise<NpyArray> {
    const artifact = { digest: ref.digest, sizeBytes: ref.sizeBytes, attempt: work.assign };
    const array = await readNpy(await this.#store.get(artifact, work.abort.signal));
    const form = array && `${array.dtype} ${array.shape.join(' ')}`;
    if (!array || form !== `${ref.dtype} ${ref.shape.join(' ')}`) {
      throw new GpuError('bad_input', `${ref.name} is not the array that was announced`);
    }
    return array;
  }

  /** While one chunk is sent, the next is computed; links are made in their order. */
  async #compute(work: Work, params: Params, inputs: Record<string, NpyArray>, moved: () => void): Promise<void> {
    let aim = Math.max(1, work.assign.chunkUnits);
    let sending: Promise<void> = Promise.resolve();
    const { sending: begun } = work.saved;
    // It was made before this page was loaded, and is what comes next.
    if (begun && begun.units.start === work.left[0]?.start) await this.#deliver(work, begun).then(moved);
    let left = work.left;
    for (let made = work.links; left.length; made += 1) {
      const units = nextChunk(left, aim, made);
      if (!units) break;
      work.abort.signal.throwIfAborted();
      work.under = { units: units.stop - units.start, share: 0 };
      const done = await this.#gpu.run(work.assign.kernel, params, inputs, units, work.abort.signal, (share) => {
        work.under.share = share;
        moved();
      });
      aim = paced(aim, units.stop - units.start, done.ms);
      left = after(left, units);
      await sending;
      work.under = { units: 0, share: 0 };
      sending = this.#deliver(work, { units, content: packArrays(done.outputs), ms: done.ms }).then(moved);
      // Whoever waits for it hears of its failure; until then nobody does, which is no unhandled rejection.
      sending.catch(() => undefined);
    }
    await sending;
  }

  /** Upload, journal, say: in this order, so that a link is only ever about an output that is there. */
  async #deliver(work: Work, made: Sending): Promise<void> {
    const { units, content, ms } = made;
    const digest = await sha256(content);
    work.saved.sending = made;
    await this.#journal.save(work.saved);
    await this.#store.put({ digest, sizeBytes: content.length, attempt: work.assign }, content, work.abort.signal);
    const link = work.next(units, digest, content.length, ms);
    const beat = work.beat(this.#ticker.nowMs(), units.stop - units.start);
    work.saved.links.push({ link, fraction: beat.fraction, elapsedMs: beat.elapsedMs });
    work.saved.sending = null;
    await this.#journal.save(work.saved);
    await work.add(link);
    work.spokenMs = this.#ticker.nowMs();
    this.#outbox.keep(work.id, link.index, progress(beat, link));
  }
}

function after(left: Range[], done: Range): Range[] {
  const [first, ...others] = left;
  if (!first || done.stop >= first.stop) return others;
  return [{ start: done.stop, stop: first.stop }, ...others];
}

/** Numbers as JavaScript has them. Throws GpuError for what it cannot hold. */
export function paramsOf(params: { [name: string]: Decoded }): Params {
  const found: Record<string, boolean | number | string> = {};
  for (const [name, value] of Object.entries(params)) {
    if (value instanceof Float) found[name] = value.value;
    else if (typeof value === 'boolean' || typeof value === 'number' || typeof value === 'string') found[name] = value;
    else throw new GpuError('unsupported', `${name} is a number that this back end cannot hold exactly`);
  }
  return found;
}
