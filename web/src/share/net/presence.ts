// SPDX-License-Identifier: Apache-2.0
/** A tab on the market, from `start` to `stop`: what it says of itself, and what it does at the market's word. */

import type { Check, Gpu, GpuInfo, KernelRate, Way } from '../gpu/port';
import type { Bytes } from './bytes';
import { Connection, type Live, PATH, type Ends } from './connection';
import { Desk } from './desk';
import type { Opened } from './envelope';
import { deviceIdOf, listingIdOf } from './ids';
import type { Journal } from './journal';
import type { Identity } from './keys';
import type { Found } from './market';
import { heartbeat, hello, offer, selfTest, settlementsAsk, type Availability, type Command, type Offer, type Settlement } from './messages';
import type { Fields } from './msgpack';
import type { Outbox } from './outbox';
import type { Ports } from './ports';
import { problemOf } from './problem';
import { BACKEND, KERNELS } from './rules';
import { Runner } from './runner';
import { Store } from './store';
import type { Earning, Problem, ProviderSettings, ProviderState } from './types';
import { measuredWay } from './way';

const CHANGE_MS = 200;
const SEEN_MS = 400;
const FAREWELL_MS = 4_000;
const LAST_WORD_MS = 200;
const SAID_MAX = 64;
const WAY_MS = 300_000;

export type News = { [name in keyof ProviderState]?: ProviderState[name] | undefined };

export interface Parts {
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

export class Presence implements Ends {
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
      full: (problem) => parts.tell({ problem: problemOf(problem) }),
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

const refusal = ({ detail, remedy }: { detail: string; remedy: string }): string =>
  [detail, remedy].filter(Boolean).join('. ');
