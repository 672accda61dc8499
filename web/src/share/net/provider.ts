// SPDX-License-Identifier: Apache-2.0
/**
 * A browser tab as a provider: its key, its session with the market, its offer and its jobs, wired together. It is a node
 * like any other, by a socket of its own (docs/adr/0032).
 */

import type { Check, Gpu, Way } from '../gpu/port';
import type { Journal } from './journal';
import { generate, identityOf } from './keys';
import { CannotShare, findMarket, type Found } from './market';
import type { Fields } from './msgpack';
import { Outbox } from './outbox';
import { browserPorts, type Ports } from './ports';
import { Presence, type News, type Parts } from './presence';
import { problemOf } from './problem';
import type { Earning, Problem, ProviderSettings, ProviderState, Readable, Sharing } from './types';

export type { Phase, Problem, ProviderSettings, ProviderState, Sharing } from './types';

const RETRY_MS = 3_000;

export class Provider implements Sharing {
  readonly state: Readable<ProviderState>;
  #now: ProviderState = { phase: 'off', peerId: '', earned: 0, earnings: [] };
  readonly #watchers = new Set<(state: ProviderState) => void>();
  readonly #gpu: Gpu;
  readonly #settings: ProviderSettings;
  readonly #ports: Ports;
  readonly #outbox = new Outbox();
  readonly #said: Fields[] = [];
  #presence: Presence | null = null;
  #starting: Promise<void> | null = null;
  /** Of the start under way: it may be stopped before there is anything to stop. */
  #given = new AbortController();
  #paused = false;

  constructor(gpu: Gpu, settings: ProviderSettings, ports: Ports = browserPorts()) {
    this.#gpu = gpu;
    this.#settings = { ...settings };
    this.#ports = ports;
    this.state = {
      subscribe: (run) => {
        this.#watchers.add(run);
        run(this.#now);
        return () => this.#watchers.delete(run);
      },
    };
  }

  start(): Promise<void> {
    if (!this.#starting) {
      this.#given = new AbortController();
      this.#starting = this.#start(this.#given.signal).finally(() => (this.#starting = null));
    }
    return this.#starting;
  }

  pause(): void {
    this.#paused = true;
    this.#presence?.changed();
    this.#tell({});
  }

  resume(): void {
    this.#paused = false;
    this.#presence?.changed();
    this.#tell({});
  }

  async stop(): Promise<void> {
    this.#given.abort(new Error('stopped'));
    await this.#starting;
    const presence = this.#presence;
    this.#presence = null;
    this.#tell({ phase: 'off' });
    await presence?.end();
  }

  setRate(rateQuPerHour: number): void {
    this.#settings.rateQuPerHour = rateQuPerHour;
    this.#presence?.changed();
  }

  setThrottle(share: number): void {
    this.#settings.throttle = share;
    this.#gpu.setShare(share);
    // A throttled card is a slower card: what was measured counts no more.
    this.#presence?.measure();
  }

  /** What the card's self-test found, for everybody who looks at the offer. */
  told(checks: Check[], tookMs: number): void {
    this.#presence?.told(checks, tookMs);
  }

  /** This clock minus the market's, in milliseconds; null without a session. */
  offsetMs(): number | null {
    return this.#presence?.offsetMs() ?? null;
  }

  /** Measured anew; null without a session. */
  async way(): Promise<Way | null> {
    return (await this.#presence?.way()) ?? null;
  }

  async #start(given: AbortSignal): Promise<void> {
    if (this.#presence) return;
    this.#tell({ phase: 'connecting', problem: undefined });
    const release = await this.#ports.lock();
    if (!release) {
      this.#fail({ code: 'other_tab', detail: '' });
      return;
    }
    try {
      given.throwIfAborted();
      const journal = await this.#ports.journal();
      const key = await identityOf(await journal.keyPair(generate));
      const earnings = await journal.earnings();
      this.#tell({ peerId: key.peerId, earnings: sorted(earnings), earned: total(earnings) });
      this.#gpu.setShare(this.#settings.throttle);
      const found = await this.#market(journal, given);
      const info = await this.#gpu.info();
      given.throwIfAborted();
      if (info.fallback && !found.fallbackAdapters) throw new CannotShare('fallback_adapter', info.model);
      const presence = new Presence(this.#parts(), journal, key, found, info, release);
      this.#presence = presence;
      await presence.begin();
    } catch (problem) {
      release();
      if (given.aborted) this.#tell({ phase: 'off' });
      else this.#fail(problemOf(problem));
    }
  }

  /** Asked for until it answers: the coordinator may be starting just now. */
  async #market(journal: Journal, given: AbortSignal): Promise<Found> {
    for (;;) {
      try {
        return await findMarket(this.#ports.origin, journal, this.#ports.fetch);
      } catch (problem) {
        if (!(problem instanceof CannotShare) || problem.code !== 'unreachable') throw problem;
        this.#tell({ problem: problemOf(problem) });
        await this.#ports.ticker.sleep(RETRY_MS, given);
      }
    }
  }

  #parts(): Parts {
    return {
      gpu: this.#gpu,
      ports: this.#ports,
      settings: this.#settings,
      outbox: this.#outbox,
      said: this.#said,
      paused: () => this.#paused,
      tell: (news) => this.#tell(news),
      earned: (earning) => {
        const earnings = sorted([earning, ...this.#now.earnings]);
        this.#tell({ earnings, earned: total(earnings) });
      },
      ended: (problem) => {
        this.#presence = null;
        this.#fail(problem);
      },
    };
  }

  #fail(problem: Problem): void {
    this.#tell({ phase: 'off', problem });
  }

  #tell(news: News): void {
    const next = { ...this.#now, ...news };
    for (const name of ['problem', 'attempt', 'listingId', 'accountId'] as const) {
      if (next[name] === undefined) delete next[name];
    }
    this.#now = next as ProviderState;
    for (const run of this.#watchers) run(this.#now);
  }
}

const sorted = (earnings: Earning[]): Earning[] => [...earnings].sort((one, other) => other.decidedMs - one.decidedMs);
const total = (earnings: Earning[]): number => earnings.reduce((sum, one) => sum + one.paidQu, 0);
