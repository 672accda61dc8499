// SPDX-License-Identifier: Apache-2.0
/**
 * Sharing this tab's card, from one click to earning: detect, key, listed, self-test, price. It outlives the page that
 * shows it: whoever looks at something else in this tab goes on sharing.
 */

import { get, type Schemas } from '../lib/api/client';
import { session } from '../lib/session.svelte';
import { tab } from '../lib/tab.svelte';
import { openAccount } from './account';
import { WorkerGpu } from './gpu/client';
import { GpuError, type Check, type Gpu, type GpuInfo } from './gpu/port';
import { Provider } from './net/provider';
import type { Problem, ProviderState, Sharing } from './net/types';
import { asked, FLOOR_QU_PER_H, type Suggestion } from './price';
import * as kept from './settings';

export type Step = 'detect' | 'key' | 'list' | 'test' | 'price';
export type StepState = 'pending' | 'now' | 'done' | 'note' | 'failed';
export const STEPS: readonly Step[] = ['detect', 'key', 'list', 'test', 'price'];
const LOOK_MS = 1_000;
const SEEN_MS = 400;
const OFF: ProviderState = { phase: 'off', peerId: '', earned: 0, earnings: [] };

class Shared {
  /** Between the click and the stop. */
  on = $state(false);
  info = $state.raw<GpuInfo | null>(null);
  /** Why this tab has no card to share; null while it is not known, or there is one. */
  missing = $state.raw<GpuError | null>(null);
  /** A processor poses as a card, and this market takes none. */
  fallbackRefused = $state(false);
  state = $state.raw<ProviderState>(OFF);
  checks = $state.raw<readonly Check[]>([]);
  testing = $state(false);
  tested = $state(false);
  suggestion = $state.raw<Suggestion | null>(null);
  rate = $state(kept.read().rateQuPerH ?? FLOOR_QU_PER_H);
  /** The person's own price; else it follows the suggestion. */
  chosen = $state(kept.read().rateQuPerH !== null);
  throttle = $state(kept.read().throttle);
  utilisation = $state(0);
  /** The tab's own account could not be opened; sharing goes on. */
  accountProblem = $state.raw<unknown>(null);

  #gpu: Gpu | null = null;
  #provider: Sharing | null = null;
  #detecting: Promise<void> | null = null;
  /** Of what the card does for itself: it ends with the sharing. */
  #own = new AbortController();
  #timer: ReturnType<typeof setInterval> | undefined;

  get problem(): Problem | null {
    return this.state.problem ?? null;
  }

  step(name: Step): StepState {
    const { phase, peerId } = this.state;
    const failed = this.on === false && this.problem !== null;
    switch (name) {
      case 'detect':
        if (this.missing || this.fallbackRefused) return 'failed';
        return this.info ? 'done' : this.#detecting ? 'now' : 'pending';
      case 'key':
        if (peerId) return 'done';
        return failed && (this.problem?.code === 'no_key' || this.problem?.code === 'no_storage') ? 'failed' : this.on ? 'now' : 'pending';
      case 'list':
        if (phase === 'listed' || phase === 'running' || phase === 'paused') return 'done';
        return failed && peerId ? 'failed' : this.on && peerId ? 'now' : 'pending';
      case 'test':
        if (this.testing) return 'now';
        return !this.tested ? 'pending' : this.checks.some((one) => one.status === 'fail') ? 'failed' : this.checks.some((one) => one.status === 'warn') ? 'note' : 'done';
      case 'price':
        return this.suggestion || this.chosen ? 'done' : this.accountProblem ? 'note' : this.on ? 'now' : 'pending';
    }
  }

  /** What is there; asks nobody but the browser, and the market whether it takes a processor's. */
  detect(): Promise<void> {
    this.#detecting ??= this.#detect().finally(() => (this.#detecting = null));
    return this.#detecting;
  }

  async #detect(): Promise<void> {
    this.missing = null;
    this.fallbackRefused = false;
    this.#gpu ??= new WorkerGpu((problem) => void this.#lost(problem));
    try {
      this.info = await this.#gpu.info();
      if (this.info.fallback) this.fallbackRefused = !(await get<Schemas['NetworkView']>('/network')).fallback_adapters;
    } catch (problem) {
      this.info = null;
      if (problem instanceof GpuError) this.missing = problem;
      // The market is away: it says later whether it takes this card.
      else this.fallbackRefused = false;
    }
  }

  /** Anew, after whatever was in the way: in a fresh worker. Goes on where a card that was shared went away. */
  async retry(): Promise<void> {
    this.#gpu?.close();
    this.#gpu = null;
    await this.detect();
    if (tab.wanted && this.info) await this.go();
  }

  async go(): Promise<void> {
    if (this.on) return;
    this.on = true;
    if (!this.info) await this.detect();
    if (!this.info || this.fallbackRefused || !this.#gpu) {
      this.#off();
      return;
    }
    tab.wanted = true;
    this.#own = new AbortController();
    this.#watch();
    const provider = new Provider(this.#gpu, { rateQuPerHour: this.rate, throttle: this.throttle });
    this.#provider = provider;
    provider.state.subscribe((state) => this.#take(provider, state));
    await provider.start();
  }

  pause(): void {
    this.#provider?.pause();
  }
  resume(): void {
    this.#provider?.resume();
  }

  /** Hands the job in hand back. */
  async stop(): Promise<void> {
    tab.wanted = false;
    await this.#leave();
  }

  /** Nothing is offered that nothing can run on. */
  async #lost(problem: GpuError): Promise<void> {
    this.missing = problem;
    this.info = null;
    if (this.on) await this.#leave();
  }

  async #leave(): Promise<void> {
    const provider = this.#provider;
    this.#provider = null;
    this.#own.abort();
    await provider?.stop();
    this.#off();
    this.state = { ...this.state, phase: 'off' };
  }

  setRate(rateQuPerH: number): void {
    this.rate = rateQuPerH;
    this.chosen = true;
    kept.write({ rateQuPerH });
    this.#provider?.setRate(rateQuPerH);
  }

  /** Back to what the market suggests. */
  follow(): void {
    this.chosen = false;
    kept.write({ rateQuPerH: null });
    void this.suggest();
  }

  setThrottle(share: number): void {
    this.throttle = share;
    kept.write({ throttle: share });
    if (this.#provider) this.#provider.setThrottle(share);
    else this.#gpu?.setShare(share);
  }

  async test(): Promise<void> {
    if (this.testing || !this.#gpu) return;
    this.testing = true;
    this.checks = [];
    const since = performance.now();
    const { signal } = this.#own;
    try {
      const provider = this.#provider;
      const offset = provider?.offsetMs() ?? null;
      const around = { offsetMs: () => (offset === null ? null : -offset), way: async () => (await provider?.way()) ?? null };
      this.checks = await this.#gpu.selfTest((check) => (this.checks = [...this.checks, check]), around, signal);
      this.tested = true;
      this.#provider?.told([...this.checks], performance.now() - since);
    } catch {
      // A card that went away is told by its own way, and a tab that was stopped needs no test.
      this.checks = [];
    }
    this.testing = false;
  }

  async suggest(): Promise<void> {
    if (!this.#gpu || !this.info || session.state !== 'in') return;
    try {
      const rates = await this.#gpu.rates(this.#own.signal);
      const gflops = (rates.find((rate) => rate.kernel === 'matmul')?.flops_per_s ?? 0) / 1e9;
      this.suggestion = await asked({ peerId: this.state.peerId, model: this.info.model, gflops });
    } catch {
      return;
    }
    if (this.chosen || !this.suggestion) return;
    this.rate = this.suggestion.rateQuPerH;
    this.#provider?.setRate(this.rate);
  }

  #take(provider: Sharing, state: ProviderState): void {
    if (this.#provider !== provider) return;
    const [before, up] = [this.state.phase, state.phase === 'listed' || state.phase === 'running'];
    this.state = state;
    tab.phase = state.phase === 'off' ? '' : state.phase;
    if (up && before === 'connecting') void this.#listed();
    if (state.phase !== 'off' || !state.problem) return;
    // It would only fail again, or take the key back from where it is used now.
    tab.wanted = false;
    this.#off();
  }

  /** The rest follows once others see it. */
  async #listed(): Promise<void> {
    const { signal } = this.#own;
    if (session.state === 'out') this.accountProblem = await openAccount().then(() => null, (problem: unknown) => problem);
    // Others see the card before it is busy with itself.
    await new Promise((resolve) => setTimeout(resolve, SEEN_MS));
    if (signal.aborted) return;
    if (!this.tested) await this.test();
    await this.suggest();
  }

  #off(): void {
    this.on = false;
    tab.phase = '';
    clearInterval(this.#timer);
    removeEventListener('beforeunload', this.#warn);
    this.utilisation = 0;
  }

  #watch(): void {
    clearInterval(this.#timer);
    this.#timer = setInterval(() => (this.utilisation = this.#gpu?.utilisation() ?? 0), LOOK_MS);
    addEventListener('beforeunload', this.#warn);
  }

  readonly #warn = (event: BeforeUnloadEvent): void => {
    if (this.state.attempt) event.preventDefault();
  };
}

export const sharing = new Shared();
