// SPDX-License-Identifier: Apache-2.0
/** One attempt under way: its assignment, where it stands, and the chain of its links. */

import type { Bytes } from './bytes';
import * as digests from './digests';
import type { Saved } from './journal';
import { assignOf, type Assign, type Beat, type Link, type Range, type Report } from './messages';
import { decode, encode, type Decoded } from './msgpack';
import { fraction, NEW, rest, type Attempt } from './rules';

export class Work {
  attempt: Attempt = NEW;
  readonly abort = new AbortController();
  /** Of the chunk that is computed now, 0 to 1, and its units. */
  under = { units: 0, share: 0 };
  /** When progress was said last. */
  spokenMs: number;
  #links = 0;
  #units = 0;
  #claimedMs = 0;
  #runMs = 0;
  #head: Bytes = digests.ZERO;
  #told = 0;

  readonly assign: Assign;
  readonly saved: Saved;
  readonly #acceptedMs: number;

  /** `nowMs` by the steady clock; `elapsedMs` when it was accepted before this page was loaded. */
  private constructor(saved: Saved, assign: Assign, nowMs: number, elapsedMs: number) {
    this.saved = saved;
    this.assign = assign;
    this.#acceptedMs = nowMs - elapsedMs;
    this.spokenMs = nowMs;
  }

  static of(body: { [name: string]: Decoded }, nowMs: number): Work {
    const assign = assignOf(body);
    const saved: Saved = {
      attemptId: assign.attemptId,
      assignBody: encode(body),
      startedMs: Date.now(),
      links: [],
      sending: null,
      acknowledged: [],
      report: null,
    };
    return new Work(saved, assign, nowMs, 0);
  }

  /** As the journal has it. What ran goes on; its time limit has gone on meanwhile. */
  static async restored(saved: Saved, nowMs: number): Promise<Work> {
    const assign = assignOf(decode(saved.assignBody) as { [name: string]: Decoded });
    const work = new Work(saved, assign, nowMs, Math.max(0, Date.now() - saved.startedMs));
    for (const made of saved.links) await work.add(made.link);
    work.attempt = {
      ...NEW,
      phase: saved.report ? 'reported' : 'running',
      fence: assign.fence,
      deadlineMs: work.#acceptedMs + assign.timeLimitMs,
    };
    return work;
  }

  get id(): string {
    return this.assign.attemptId;
  }

  get active(): boolean {
    return this.attempt.phase === 'running' || this.attempt.phase === 'stopping';
  }

  get links(): number {
    return this.#links;
  }

  get left(): Range[] {
    return rest(this.assign.ranges, this.#units);
  }

  next(units: Range, outputDigest: Bytes, outputBytes: number, ms: number): Link {
    this.#runMs += ms;
    return {
      index: this.#links,
      units,
      outputDigest,
      outputBytes,
      // Rounding the sum, not each part, keeps tiny chunks from costing nothing or too much.
      claimedMs: Math.max(0, Math.round(this.#runMs) - this.#claimedMs),
      predecessor: this.#head,
    };
  }

  async add(link: Link): Promise<void> {
    this.#head = await digests.ofLink(link);
    this.#links += 1;
    this.#units += link.units.stop - link.units.start;
    this.#claimedMs += link.claimedMs;
    this.#runMs = Math.max(this.#runMs, this.#claimedMs);
  }

  elapsedMs(nowMs: number): number {
    return Math.max(0, Math.round(nowMs - this.#acceptedMs));
  }

  /** Never falls. `more`: units of a link that is not yet in the chain. */
  beat(nowMs: number, more = 0): Beat {
    const under = more || this.under.units * this.under.share;
    this.#told = Math.max(this.#told, fraction(this.#units + under, this.assign.ranges));
    return {
      attemptId: this.id,
      fence: this.assign.fence,
      fraction: this.#told,
      elapsedMs: this.elapsedMs(nowMs),
    };
  }

  /** By its verdict, which there must be. */
  async report(): Promise<Report> {
    const { assign, saved } = this;
    const end = saved.report;
    if (!end) throw new Error('an attempt is reported once its end is known');
    return {
      assign,
      outcome: end.outcome,
      paramsDigest: await digests.ofParams(assign.params),
      inputsDigest: await digests.ofInputs(assign.inputs),
      links: this.#links,
      unitsDone: this.#units,
      head: this.#head,
      claimedMs: this.#claimedMs,
      startedMs: saved.startedMs,
      finishedMs: Math.max(end.finishedMs, saved.startedMs),
      failure: end.failure,
    };
  }
}
