// SPDX-License-Identifier: Apache-2.0
/** Everything about attempts meets here: commands, ends of runs, the clock. `rules` decides. */

import { NoStorage } from './idb';
import type { Journal } from './journal';
import {
  accept,
  decline,
  progress,
  report,
  type Assign,
  type Beat,
  type Command,
  type LiveAttempt,
} from './messages';
import type { Decoded, Fields } from './msgpack';
import type { Outbox } from './outbox';
import { decide, failed, NEW, obstacle, type Action, type Attempt, type Event, type Facts } from './rules';
import type { Runner } from './runner';
import type { Ticker } from './ticker';
import { Work } from './work';

const TICK_MS = 500;
const PROGRESS_MS = 4_000;
const ENDED_MAX = 256;

export interface Surroundings {
  /** Of this moment, without `busy` and `fenceMax`. */
  facts(): Omit<Facts, 'busy' | 'fenceMax'>;
  /** Once, over whatever session there is; lost without one. */
  say(message: Fields): void;
  /** Something was kept that should be sent now. */
  kept(): void;
  changed(): void;
  /** The browser keeps nothing more. */
  full(problem: NoStorage): void;
}

export class Desk {
  readonly #open = new Map<string, Work>();
  readonly #ended = new Map<string, { jobId: string; attempt: Attempt }>();
  readonly #journal: Journal;
  readonly #outbox: Outbox;
  readonly #runner: Runner;
  readonly #ticker: Ticker;
  readonly #around: Surroundings;
  /** Decisions take turns: what one writes is on disk before the next is made. */
  #turn: Promise<unknown> = Promise.resolve();
  #abandoned = false;

  constructor(journal: Journal, outbox: Outbox, runner: Runner, ticker: Ticker, around: Surroundings) {
    this.#journal = journal;
    this.#outbox = outbox;
    this.#runner = runner;
    this.#ticker = ticker;
    this.#around = around;
  }

  /** What runs now. */
  get active(): Work | null {
    return [...this.#open.values()].find((work) => work.active) ?? null;
  }

  /** Nothing runs, and no report waits to be acknowledged. */
  get idle(): boolean {
    return this.#open.size === 0;
  }

  liveAttempts(): LiveAttempt[] {
    return [...this.#open.values()].map((work) => ({
      attemptId: work.id,
      fence: work.assign.fence,
      running: work.active,
    }));
  }

  beats(): Beat[] {
    const nowMs = this.#ticker.nowMs();
    return [...this.#open.values()].filter((work) => work.active).map((work) => work.beat(nowMs));
  }

  /** Takes up what the journal has. What ran goes on. */
  async restore(): Promise<void> {
    for (const saved of await this.#journal.attempts()) {
      const work = await Work.restored(saved, this.#ticker.nowMs());
      this.#open.set(work.id, work);
      const known = new Set(saved.acknowledged);
      for (const { link, fraction, elapsedMs } of saved.links) {
        const beat = { attemptId: work.id, fence: work.assign.fence, fraction, elapsedMs };
        if (!known.has(link.index)) this.#outbox.keep(work.id, link.index, progress(beat, link));
      }
      if (saved.report) this.#outbox.keep(work.id, null, report(await work.report()));
      else void this.#attempt(work);
    }
    this.#around.changed();
  }

  /** One believed command; `body` is the assignment's as it came. */
  async command(command: Command, body: { [name: string]: Decoded }): Promise<void> {
    switch (command.t) {
      case 'assign':
        return this.#inTurn(() => this.#assigned(command.assign, body));
      case 'cancel':
        return this.#known(command.attemptId, { t: 'cancelled', fence: command.fence });
      case 'settlement':
        return this.#known(command.settlement.attemptId, { t: 'settled' });
      case 'acknowledged': {
        const news = this.#outbox.acknowledge(command.attemptId, command.link);
        if (command.link === null) return this.#known(command.attemptId, { t: 'report_acknowledged' });
        if (news) return this.#inTurn(() => this.#linkKnown(command.attemptId, command.link ?? 0));
        return undefined;
      }
      default:
        return undefined;
    }
  }

  unanswered(attemptId: string): Promise<void> {
    return this.#known(attemptId, { t: 'unanswered' });
  }

  /** Stops what runs; resolves once the reports are acknowledged, or when `signal` is aborted. */
  async drain(signal: AbortSignal): Promise<void> {
    for (const work of [...this.#open.values()]) await this.#known(work.id, { t: 'quitting' });
    while (!this.idle && !signal.aborted) await this.#ticker.sleep(20);
  }

  /** Stops at once, and says nothing: the journal has what is needed to go on. */
  abandon(): void {
    this.#abandoned = true;
    for (const work of this.#open.values()) work.abort.abort(new Error('abandoned'));
  }

  async #assigned(assign: Assign, body: { [name: string]: Decoded }): Promise<void> {
    let work = this.#open.get(assign.attemptId);
    if (!work) {
      work = Work.of(body, this.#ticker.nowMs());
      work.attempt = this.#ended.get(assign.attemptId)?.attempt ?? NEW;
    }
    const { fence, timeLimitMs } = assign;
    let why = '';
    if (work.attempt.phase === 'unknown') {
      why = obstacle(assign, this.#facts(assign.jobId));
      // What is accepted is on disk before the market hears of it.
      if (!why && !(await this.#keeps(work))) why = 'disk';
    }
    await this.#apply(work, { t: 'assigned', fence, timeLimitMs, obstacle: why }, assign);
  }

  #facts(jobId: string): Facts {
    const fences = [...this.#open.values()].filter((one) => one.assign.jobId === jobId).map((one) => one.assign.fence);
    for (const one of this.#ended.values()) if (one.jobId === jobId) fences.push(one.attempt.fence);
    return { ...this.#around.facts(), busy: this.active !== null, fenceMax: Math.max(0, ...fences) };
  }

  async #linkKnown(attemptId: string, index: number): Promise<void> {
    const work = this.#open.get(attemptId);
    if (!work) return;
    work.saved.acknowledged.push(index);
    // What is not kept is said once more after a reload.
    await this.#keeps(work);
  }

  /** Whether there was room for it. */
  async #keeps(work: Work): Promise<boolean> {
    try {
      await this.#journal.save(work.saved);
      return true;
    } catch (problem) {
      if (!(problem instanceof NoStorage)) throw problem;
      this.#around.full(problem);
      return false;
    }
  }

  #known(attemptId: string, event: Event): Promise<void> {
    return this.#inTurn(async () => {
      const work = this.#open.get(attemptId);
      if (work) await this.#apply(work, event);
    });
  }

  #inTurn(step: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(step);
    this.#turn = done.catch(() => undefined);
    return done;
  }

  async #apply(work: Work, event: Event, command: Assign = work.assign): Promise<void> {
    const decision = decide(work.attempt, event, this.#ticker.nowMs());
    work.attempt = decision.attempt;
    for (const action of decision.actions) await this.#do(action, work, decision.reason, command);
    if (decision.actions.length) this.#around.changed();
  }

  async #do(action: Action, work: Work, reason: string, command: Assign): Promise<void> {
    switch (action) {
      case 'accept':
        this.#open.set(work.id, work);
        this.#around.say(accept(work.assign));
        return;
      case 'decline':
        this.#around.say(decline(command, reason));
        return;
      case 'start':
        void this.#attempt(work);
        return;
      case 'kill':
        work.abort.abort(new Error('stopped'));
        return;
      case 'report':
        return this.#report(work);
      case 'resend':
        this.#outbox.resend(work.id);
        this.#around.kept();
        return;
      case 'forget':
        return this.#forget(work);
    }
  }

  async #report(work: Work): Promise<void> {
    const { verdict } = work.attempt;
    if (!verdict) throw new Error('an attempt is reported once its end is known');
    const { outcome, code, detail } = verdict;
    work.saved.report = { outcome, failure: outcome === 'failed' ? { code, detail } : null, finishedMs: Date.now() };
    // It is said all the same: a reload would make it anew.
    await this.#keeps(work);
    this.#outbox.keep(work.id, null, report(await work.report()));
    this.#around.kept();
  }

  async #forget(work: Work): Promise<void> {
    this.#open.delete(work.id);
    this.#outbox.forget(work.id);
    this.#ended.set(work.id, { jobId: work.assign.jobId, attempt: work.attempt });
    const oldest = this.#ended.keys().next();
    if (this.#ended.size > ENDED_MAX && !oldest.done) this.#ended.delete(oldest.value);
    await this.#journal.forget(work.id);
  }

  async #attempt(work: Work): Promise<void> {
    const over = new AbortController();
    void this.#watch(work, over.signal);
    const moved = (): void => {
      this.#around.kept();
      this.#around.changed();
    };
    const verdict = await this.#runner.run(work, moved).catch((problem) => failed('internal', String(problem)));
    over.abort();
    if (this.#abandoned) return;
    await this.#known(work.id, { t: 'ended', verdict });
  }

  /** The attempt's clock: its deadline, and progress when there was none for a while. */
  async #watch(work: Work, over: AbortSignal): Promise<void> {
    while (!over.aborted) {
      await this.#ticker.sleep(TICK_MS);
      if (over.aborted) return;
      await this.#known(work.id, { t: 'ticked' });
      const nowMs = this.#ticker.nowMs();
      if (nowMs >= work.spokenMs + PROGRESS_MS) {
        work.spokenMs = nowMs;
        this.#around.say(progress(work.beat(nowMs), null));
      }
    }
  }
}
