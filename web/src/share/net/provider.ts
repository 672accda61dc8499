// SPDX-License-Identifier: Apache-2.0
/**
 * A browser tab as a provider: its key, its session with the market, its offer and its jobs, wired together. It is a node
 * like any other, by a socket of its own (docs/adr/0032).
 */

import { GpuError, type Check, type Gpu, type GpuInfo, type KernelRate, type Way } from '../gpu/port';
import type { Bytes } from './bytes';
import { Connection, Live, PATH, type Ends } from './connection';
import { Database } from './database';
import { NoStorage } from './idb';
import { Desk } from './desk';
import type { Opened } from './envelope';
import { deviceIdOf, listingIdOf } from './ids';
import type { Journal } from './journal';
import { generate, identityOf, NoKey, type Identity } from './keys';
import { CannotShare, findMarket, type Found } from './market';
import { heartbeat, hello, offer, selfTest, settlementsAsk, type Availability, type Command, type Offer, type Settlement } from './messages';
import type { Fields } from './msgpack';
import { Outbox } from './outbox';
import { BACKEND, KERNELS } from './rules';
import { Runner } from './runner';
import { Store } from './store';
import { PageTicker, WorkerTicker, type Ticker } from './ticker';
import { measuredWay } from './way';
import type { Earning, Problem, ProviderSettings, ProviderState, Readable, Sharing } from './types';

export type { Phase, Problem, ProviderSettings, ProviderState, Sharing } from './types';

const LOCK = 'qubix-provider';
/** A page that is reloaded gives the lock back when all of it is gone, which a busy machine takes its time for. */
const LOCK_MS = 8_000;
const RETRY_MS = 3_000;
const CHANGE_MS = 200;
const SEEN_MS = 400;
const FAREWELL_MS = 4_000;
const LAST_WORD_MS = 200;
const SAID_MAX = 64;
const WAY_MS = 300_000;

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

export class Provider implements Sharing {
  readonly state: Readable<ProviderState>;
  #now: ProviderState = { phase: 'off', peerId: '', earned: 0, earnings: [] };
  readonly #watchers = new Set<(state: ProviderState) => void>();
  readonly #gpu: Gpu;
  readonly #settings: ProviderSettings;
  readonly #ports: Ports;
  readonly #outbox = new Outbox();
  readonly #said: Fields[] = [];
  #run: Run | null = null;
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
    this.#run?.changed();
    this.#tell({});
  }

  resume(): void {
    this.#paused = false;
    this.#run?.changed();
    this.#tell({});
  }

  async stop(): Promise<void> {
    this.#given.abort(new Error('stopped'));
    await this.#starting;
    const run = this.#run;
    this.#run = null;
    this.#tell({ phase: 'off' });
    await run?.end();
  }

  setRate(rateQuPerHour: number): void {
    this.#settings.rateQuPerHour = rateQuPerHour;
    this.#run?.changed();
  }

  setThrottle(share: number): void {
    this.#settings.throttle = share;
    this.#gpu.setShare(share);
    // A throttled card is a slower card: what was measured counts no more.
    this.#run?.measure();
  }

  /** What the card's self-test found, for everybody who looks at the offer. */
  told(checks: Check[], tookMs: number): void {
    this.#run?.told(checks, tookMs);
  }

  /** This clock minus the market's, in milliseconds; null without a session. */
  offsetMs(): number | null {
    return this.#run?.offsetMs() ?? null;
  }

  /** Measured anew; null without a session. */
  async way(): Promise<Way | null> {
    return (await this.#run?.way()) ?? null;
  }

  async #start(given: AbortSignal): Promise<void> {
    if (this.#run) return;
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
      const run = new Run(this.#parts(), journal, key, found, info, release);
      this.#run = run;
      await run.begin();
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
        this.#run = null;
        this.#fail(problem);
      },
    };
  }

  #fail(problem: Problem): void {
    this.#tell({ phase: 'off', problem });
  }

  #tell(news: { [name in keyof ProviderState]?: ProviderState[name] | undefined }): void {
    const next = { ...this.#now, ...news };
    for (const name of ['problem', 'attempt', 'listingId', 'accountId'] as const) {
      if (next[name] === undefined) delete next[name];
    }
    this.#now = next as ProviderState;
    for (const run of this.#watchers) run(this.#now);
  }
}

type News = { [name in keyof ProviderState]?: ProviderState[name] | undefined };

interface Parts {
  gpu: Gpu;
  ports: Ports;
  settings: ProviderSettings;
  outbox: Outbox;
  said: Fields[];
  paused(): boolean;
  tell(news: News): void;
  earned(earning: Earning): void;
  /** It cannot go on by itself. */
  ended(problem: Problem): void;
}

/** From `start` to `stop`. */
class Run implements Ends {
  readonly #parts: Parts;
  readonly #journal: Journal;
  readonly #key: Identity;
  #info: GpuInfo;
  readonly #release: () => void;
  readonly #deviceId: string;
  readonly #stop = new AbortController();
  readonly #desk: Desk;
  readonly #connection: Connection;
  #live: Live | null = null;
  #waiting: (() => void)[] = [];
  #rates: KernelRate[] = [];
  #listingId = '';
  #way: { way: Way; atMs: number } | null = null;
  #told = '';
  #due = false;
  #leaving = false;
  #wasUp = false;
  #stay: () => void = () => undefined;

  constructor(parts: Parts, journal: Journal, key: Identity, found: Found, info: GpuInfo, release: () => void) {
    this.#parts = parts;
    this.#journal = journal;
    this.#key = key;
    this.#info = info;
    this.#release = release;
    this.#deviceId = deviceIdOf(key.peerId);
    const { gpu, outbox, ports } = parts;
    const store = new Store((request) => this.#authorise(request), ports.ticker, ports.fetch);
    const runner = new Runner(gpu, store, journal, outbox, ports.ticker);
    this.#desk = new Desk(journal, outbox, runner, ports.ticker, {
      facts: () => ({
        deviceId: this.#deviceId,
        kernels: this.#rates.map((rate) => rate.kernel),
        rateQuPerH: parts.settings.rateQuPerHour,
        draining: parts.paused() || this.#leaving,
      }),
      say: (message) => this.#say(message),
      kept: () => this.#send(),
      changed: () => this.changed(),
    });
    const pins = { key, network: found.network, coordinator: found.coordinator };
    this.#connection = new Connection(`${ports.origin.replace(/^http/, 'ws')}${PATH}`, pins, ports.ticker, this);
  }

  async begin(): Promise<void> {
    this.#listingId = await listingIdOf(this.#key.peerId, this.#deviceId);
    await this.#desk.restore();
    this.#stay = this.#parts.ports.leaving(() => this.#live?.leave());
    void this.#connection.run(this.#stop.signal);
  }

  /** Hands back what runs, says goodbye, and is gone. */
  async end(): Promise<void> {
    this.#leaving = true;
    const { ticker } = this.#parts.ports;
    const late = new AbortController();
    void ticker.sleep(FAREWELL_MS, late.signal).then(
      () => late.abort(),
      () => undefined,
    );
    await this.#desk.drain(late.signal);
    late.abort(new Error('done'));
    if (this.#live) {
      this.#live.offer(this.#offer('offline'));
      await this.#live.flushed();
      await ticker.sleep(LAST_WORD_MS);
    }
    this.#close();
  }

  /** Once it is known how fast each kernel is, work can come. */
  measure(): void {
    this.#parts.gpu.rates(this.#stop.signal).then(
      (rates) => {
        this.#rates = rates.filter((rate) => rate.backend === BACKEND && rate.kernel in KERNELS);
        this.changed();
      },
      (problem: unknown) => {
        if (!this.#stop.signal.aborted) this.#parts.tell({ problem: problemOf(problem) });
      },
    );
  }

  /** Others see the card before it is busy with being measured. */
  async #measureSoon(): Promise<void> {
    await this.#parts.ports.ticker.sleep(SEEN_MS, this.#stop.signal).catch(() => undefined);
    this.measure();
  }

  told(checks: Check[], tookMs: number): void {
    void this.#look();
    this.#say(selfTest(crypto.randomUUID(), this.#deviceId, Date.now(), Math.round(tookMs), checks));
  }

  /** A self-test has found out how much memory there is. */
  async #look(): Promise<void> {
    try {
      this.#info = await this.#parts.gpu.info();
      this.changed();
    } catch (problem) {
      this.#parts.tell({ problem: problemOf(problem) });
    }
  }

  /** The store takes a few test artifacts of a node in some minutes: what was measured just now is told again. */
  async way(): Promise<Way | null> {
    if (!this.#live) return null;
    const now = this.#parts.ports.ticker.nowMs();
    if (this.#way && now - this.#way.atMs < WAY_MS) return this.#way.way;
    const way = await measuredWay((request) => this.#authorise(request), this.#parts.ports.fetch);
    this.#way = way.problem ? null : { way, atMs: now };
    return way;
  }

  offsetMs(): number | null {
    return this.#live ? Date.now() - this.#live.session.coordinatorMs() : null;
  }

  /** Something that others see is another one now: told soon, and what follows at once with it. */
  changed(): void {
    this.#tellState();
    if (this.#due) return;
    this.#due = true;
    void this.#parts.ports.ticker.sleep(CHANGE_MS).then(() => {
      this.#due = false;
      this.#offerIfNew();
    });
  }

  // What the connection tells --------------------------------------------------------------------------------------

  up(live: Live): void {
    this.#live = live;
    if (!this.#wasUp) void this.#measureSoon();
    this.#wasUp = true;
    this.#told = '';
    this.#parts.outbox.restart();
    this.#parts.tell({ accountId: live.session.welcome.accountId, problem: undefined });
    for (const wake of this.#waiting.splice(0)) wake();
    this.#offerIfNew();
    void this.#askSettlements();
    void this.#beat(live);
    void this.#repeat(live);
    this.#tellState();
  }

  down(): void {
    this.#live = null;
    this.#tellState();
  }

  hello(nonce: Bytes): Fields {
    const host = {
      system: 'browser',
      cpuModel: '',
      cpuCores: Math.max(1, Math.min(4096, navigator.hardwareConcurrency || 1)),
      memoryBytes: 0,
      agent: navigator.userAgent.slice(0, 200),
    };
    return hello(nonce, Date.now(), host, this.#desk.liveAttempts(), this.#parts.settings.region ?? '');
  }

  async fresh(incarnation: number): Promise<boolean> {
    if (incarnation <= (await this.#journal.incarnation())) return false;
    await this.#journal.setIncarnation(incarnation);
    return true;
  }

  async command(command: Command, opened: Opened): Promise<void> {
    if (command.t === 'refused') this.#parts.tell({ problem: { code: 'refused', detail: refusal(command) } });
    await this.#desk.command(command, opened.body);
    if (command.t === 'settlement') await this.#earned(command.settlement, opened.raw);
    if (command.t === 'settlements') await this.#toldAgain(command);
    this.#send();
  }

  refusedBy(detail: string): void {
    this.#parts.tell({ problem: { code: 'refused', detail } });
  }

  unreachable(detail: string): void {
    this.#parts.tell({ problem: { code: 'unreachable', detail } });
  }

  takenOver(): void {
    this.#close();
    this.#parts.ended({ code: 'taken_over', detail: '' });
  }

  // Saying ---------------------------------------------------------------------------------------------------------

  #say(message: Fields): void {
    if (this.#live) this.#live.send(message);
    else if (this.#parts.said.length < SAID_MAX && message['t'] !== 'progress') this.#parts.said.push(message);
  }

  #send(): void {
    if (!this.#live) return;
    for (const message of this.#parts.said.splice(0)) this.#live.send(message);
    const { messages, unanswered } = this.#parts.outbox.due(this.#parts.ports.ticker.nowMs());
    for (const message of messages) this.#live.send(message);
    if (unanswered) void this.#desk.unanswered(unanswered);
  }

  /** Every beat also looks for what waits too long. */
  async #beat(live: Live): Promise<void> {
    while (!live.signal.aborted) {
      live.keepLastWord(this.#parts.ports.ticker.nowMs());
      live.send(heartbeat(this.#desk.beats()));
      this.#send();
      await this.#pause(live, live.session.welcome.heartbeatS * 1000);
    }
  }

  async #repeat(live: Live): Promise<void> {
    for (;;) {
      await this.#pause(live, live.session.welcome.offerS * 1000 * (0.8 + 0.2 * Math.random()));
      if (live.signal.aborted) return;
      this.#told = '';
      this.#offerIfNew();
    }
  }

  #pause(live: Live, ms: number): Promise<void> {
    return this.#parts.ports.ticker.sleep(ms, live.signal).catch(() => undefined);
  }

  #offerIfNew(): void {
    if (!this.#live || this.#leaving) return;
    const said = this.#offer(this.#availability());
    const text = JSON.stringify(said);
    if (text === this.#told) return;
    this.#told = text;
    this.#live.offer(said);
  }

  #availability(): Availability {
    const busy = this.#desk.active !== null;
    if (this.#parts.paused()) return busy ? 'draining' : 'offline';
    return busy ? 'busy' : 'available';
  }

  /** Back ends on which nothing runs yet are left out: it is seen at once, and gets work when it can do some. */
  #offer(availability: Availability): Fields {
    const { settings } = this.#parts;
    const said: Offer = {
      device: {
        deviceId: this.#deviceId,
        model: this.#info.model.slice(0, 200),
        // Until somebody has tried how much there is: what one buffer may hold is there at least.
        memoryBytes: Math.floor(this.#info.memoryBytes || (this.#info.limits['maxBufferSize'] ?? 0)),
        driver: [this.#info.vendor, this.#info.architecture].filter(Boolean).join(' ').slice(0, 200),
        backends: this.#rates.length ? [BACKEND] : [],
        fallback: this.#info.fallback,
      },
      rateQuPerH: settings.rateQuPerHour,
      region: this.#live?.session.region ?? '',
      availability,
      rates: this.#rates.map((rate) => ({
        kernel: rate.kernel,
        backend: rate.backend,
        flopsPerS: rate.flops_per_s,
        bytesPerS: rate.bytes_per_s,
        overheadS: rate.overhead_s,
      })),
      cpuCores: Math.max(0, Math.min(4096, navigator.hardwareConcurrency || 0)),
      country: settings.country ?? '',
    };
    return offer(said);
  }

  async #authorise(request: Fields): Promise<{ url: string; token: Bytes }> {
    while (!this.#live) {
      if (this.#stop.signal.aborted) throw new Error('stopped');
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    const { session } = this.#live;
    // By this page's own origin: behind a proxy the address that nodes are told may be another one.
    return { url: `${this.#parts.ports.origin}/api/v1/artifacts`, token: await session.pass(request) };
  }

  async #earned(one: Settlement, raw: Uint8Array): Promise<void> {
    const { jobId, attemptId, verdict, paidQu, decidedMs } = one;
    const earning: Earning = { jobId, attemptId, verdict, paidQu, decidedMs };
    if (await this.#journal.earn(earning, new Uint8Array(raw))) this.#parts.earned(earning);
  }

  /** What was settled while this tab was away. */
  async #askSettlements(): Promise<void> {
    const after = await this.#journal.toldUpTo();
    this.#live?.send(settlementsAsk(after));
  }

  async #toldAgain({ told, next, more }: Command & { t: 'settlements' }): Promise<void> {
    for (const raw of told) {
      const settlement = await this.#live?.session.settlement(raw);
      if (!settlement) return;
      await this.#desk.command({ t: 'settlement', settlement }, {});
      await this.#earned(settlement, raw);
    }
    await this.#journal.setToldUpTo(next);
    if (more) await this.#askSettlements();
  }

  #tellState(): void {
    const work = this.#desk.active;
    const news: News = { attempt: undefined, listingId: this.#listingId };
    if (work) {
      const { jobId, kernel } = work.assign;
      const { fraction, elapsedMs } = work.beat(this.#parts.ports.ticker.nowMs());
      news.attempt = { jobId, kernel, fraction, elapsedMs };
    }
    if (!this.#live) news.phase = this.#wasUp ? 'lost' : 'connecting';
    else if (work) news.phase = 'running';
    else news.phase = this.#parts.paused() ? 'paused' : 'listed';
    if (!this.#leaving) this.#parts.tell(news);
  }

  #close(): void {
    this.#leaving = true;
    this.#stay();
    this.#desk.abandon();
    this.#stop.abort(new Error('stopped'));
    for (const wake of this.#waiting.splice(0)) wake();
    this.#release();
  }
}

const sorted = (earnings: Earning[]): Earning[] => [...earnings].sort((one, other) => other.decidedMs - one.decidedMs);
const total = (earnings: Earning[]): number => earnings.reduce((sum, one) => sum + one.paidQu, 0);
const refusal = ({ detail, remedy }: { detail: string; remedy: string }): string =>
  [detail, remedy].filter(Boolean).join('. ');

function problemOf(problem: unknown): Problem {
  if (problem instanceof CannotShare) return { code: problem.code, detail: problem.message };
  if (problem instanceof NoKey) return { code: 'no_key', detail: problem.message };
  if (problem instanceof NoStorage) return { code: 'no_storage', detail: problem.message };
  if (problem instanceof GpuError) return { code: 'gpu', detail: [problem.message, problem.remedy].filter(Boolean).join(' ') };
  return { code: 'internal', detail: String(problem) };
}

function browserPorts(): Ports {
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
