// SPDX-License-Identifier: Apache-2.0
/** The port, as the page holds it: every call goes to the module worker. */

import { gpu } from '../../lib/strings.share';
import { adapterOf } from './card';
import * as checks from './checks';
import type { Answer, Ask, FromWorker, Sent, ToWorker } from './messages';
import { GpuError, type Around, type Check, type Done, type Gpu, type GpuInfo, type KernelRate, type NpyArray, type Params, type Range } from './port';

/** Of inputs that stay in the worker from one chunk to the next. */
const KEPT_BYTES_MAX = 1024 ** 3;

interface Waiting {
  done: (answer: Answer) => void;
  failed: (problem: GpuError) => void;
  fraction?: ((fraction: number) => void) | undefined;
  check?: ((check: Check) => void) | undefined;
}

const stopped = (): GpuError => new GpuError('aborted', 'it was stopped');

export class WorkerGpu implements Gpu {
  readonly #worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module', name: 'qubix-gpu' });
  readonly #waiting = new Map<number, Waiting>();
  /** What the worker has, the longest unused first. */
  readonly #kept = new Map<string, number>();
  readonly #keys = new WeakMap<ArrayBuffer, { key: string; form: string }>();
  readonly #lost: (problem: GpuError) => void;
  #dead: GpuError | null = null;
  #number = 0;
  #found = false;
  #utilisation = 0;

  /** `lost` hears when the card went away and did not come back. */
  constructor(lost: (problem: GpuError) => void = () => undefined) {
    this.#lost = lost;
    this.#worker.onmessage = (event: MessageEvent<FromWorker>) => this.#take(event.data);
    this.#worker.onerror = (event) => this.#end(new GpuError('internal', event.message || 'The worker did not start.', gpu.remedies.reload));
  }

  async info(): Promise<GpuInfo> {
    // What the page does not get, its worker does not either, and here it costs nothing to find out.
    if (!this.#found) await adapterOf();
    const info = (await this.#ask({ do: 'info' })) as GpuInfo;
    this.#found = true;
    return info;
  }

  run(
    kernel: string,
    params: Params,
    inputs: Record<string, NpyArray>,
    units: Range,
    signal: AbortSignal,
    told?: (fraction: number) => void,
  ): Promise<Done> {
    if (signal.aborted) return Promise.reject(stopped());
    const sent = Object.fromEntries(Object.entries(inputs).map(([name, array]) => [name, this.#sent(array)]));
    this.#makeRoom(new Set(Object.values(sent).map((one) => one.key)));
    return this.#ask({ do: 'run', kernel, params, inputs: sent, units }, { fraction: told }, signal) as Promise<Done>;
  }

  async selfTest(report: (check: Check) => void, around: Around, signal: AbortSignal): Promise<Check[]> {
    const found = (await this.#ask({ do: 'selfTest' }, { check: report }, signal)) as Check[];
    for (const more of [await checks.way(around), checks.clock(around)]) {
      report(more);
      found.push(more);
    }
    return found;
  }

  rates(signal: AbortSignal): Promise<KernelRate[]> {
    return this.#ask({ do: 'rates' }, {}, signal) as Promise<KernelRate[]>;
  }

  setShare(share: number): void {
    this.#say({ share });
  }

  hold(on: boolean): void {
    this.#say({ hold: on });
  }

  utilisation(): number {
    return this.#utilisation;
  }

  close(): void {
    this.#worker.terminate();
    this.#end(stopped());
  }

  #sent(array: NpyArray): Sent {
    const form = `${array.dtype} ${array.shape.join()}`;
    const known = this.#keys.get(array.data);
    if (known?.form === form && this.#kept.has(known.key)) {
      this.#kept.delete(known.key);
      this.#kept.set(known.key, array.data.byteLength);
      return { key: known.key };
    }
    this.#number += 1;
    const key = `array ${this.#number}`;
    this.#keys.set(array.data, { key, form });
    this.#kept.set(key, array.data.byteLength);
    return { key, array };
  }

  #makeRoom(needed: ReadonlySet<string>): void {
    let total = [...this.#kept.values()].reduce((sum, one) => sum + one, 0);
    const drop: string[] = [];
    for (const [key, bytes] of this.#kept) {
      if (total <= KEPT_BYTES_MAX) break;
      if (needed.has(key)) continue;
      drop.push(key);
      total -= bytes;
    }
    for (const key of drop) this.#kept.delete(key);
    if (drop.length) this.#say({ drop });
  }

  #say(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #ask(ask: Ask, heard: Pick<Waiting, 'fraction' | 'check'> = {}, signal?: AbortSignal): Promise<Answer> {
    if (this.#dead) return Promise.reject(this.#dead);
    this.#number += 1;
    const id = this.#number;
    if (signal?.aborted) return Promise.reject(stopped());
    const stop = (): void => this.#say({ abort: id });
    signal?.addEventListener('abort', stop, { once: true });
    const answer = new Promise<Answer>((done, failed) => this.#waiting.set(id, { done, failed, ...heard }));
    this.#say({ id, ask });
    return answer.finally(() => signal?.removeEventListener('abort', stop));
  }

  #take(message: FromWorker): void {
    if (!('id' in message)) {
      this.#utilisation = message.utilisation;
      return;
    }
    const waiting = this.#waiting.get(message.id);
    if (!waiting) return;
    if ('fraction' in message) waiting.fraction?.(message.fraction);
    else if ('check' in message) waiting.check?.(message.check);
    else {
      this.#waiting.delete(message.id);
      if ('done' in message) waiting.done(message.done);
      else this.#fail(waiting, new GpuError(message.failed.code, message.failed.message, message.failed.remedy));
    }
  }

  #fail(waiting: Waiting, problem: GpuError): void {
    waiting.failed(problem);
    if (problem.code !== 'device_lost') return;
    this.#found = false;
    this.#lost(problem);
  }

  #end(problem: GpuError): void {
    this.#dead = problem;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const one of waiting) one.failed(problem);
  }
}
