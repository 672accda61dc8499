// SPDX-License-Identifier: Apache-2.0
/**
 * What becomes of an attempt in this tab: one table of phases and events, as `qubix_node.jobs.rules` has it. Pure; times
 * are steady milliseconds. Unlike a node that was killed, a reloaded tab goes on behind its last link.
 */

import type { Assign, Outcome, Range } from './messages';

/** `stopping`: told to stop; the GPU is being taken away from it. */
export type Phase = 'unknown' | 'running' | 'stopping' | 'reported' | 'forgotten';
export type Action = 'accept' | 'decline' | 'start' | 'kill' | 'report' | 'resend' | 'forget';
export interface Verdict {
  outcome: Outcome;
  code: string;
  detail: string;
}
export interface Attempt {
  phase: Phase;
  fence: number;
  deadlineMs: number;
  verdict: Verdict | null;
  /** Nobody waits for its report. */
  settled: boolean;
}
export type Event =
  | { t: 'assigned'; fence: number; timeLimitMs: number; obstacle: string }
  | { t: 'cancelled'; fence: number }
  /** However the run ended by itself. */
  | { t: 'ended'; verdict: Verdict }
  | { t: 'ticked' }
  | { t: 'quitting' }
  | { t: 'report_acknowledged' }
  | { t: 'settled' }
  /** A link or report was sent many times in live sessions and never acknowledged: nobody wants it. */
  | { t: 'unanswered' };
export interface Decision {
  attempt: Attempt;
  actions: Action[];
  /** With a decline. */
  reason: string;
}

export const NEW: Attempt = { phase: 'unknown', fence: 0, deadlineMs: 0, verdict: null, settled: false };
const CANCELLED: Verdict = { outcome: 'cancelled', code: '', detail: '' };

export const failed = (code: string, detail: string): Verdict => ({ outcome: 'failed', code, detail });
export const COMPLETED: Verdict = { outcome: 'completed', code: '', detail: '' };

export function decide(attempt: Attempt, event: Event, nowMs: number): Decision {
  switch (attempt.phase) {
    case 'unknown':
      return event.t === 'assigned' ? admitted(attempt, event, nowMs) : nothing(attempt);
    case 'running':
      return whileRunning(attempt, event, nowMs);
    case 'stopping':
      return whileStopping(attempt, event);
    case 'reported':
      return whileReported(attempt, event);
    case 'forgotten':
      return event.t === 'assigned' ? again(attempt, event.fence, ['decline'], 'already_done') : nothing(attempt);
  }
}

const nothing = (attempt: Attempt): Decision => ({ attempt, actions: [], reason: '' });
const act = (attempt: Attempt, ...actions: Action[]): Decision => ({ attempt, actions, reason: '' });
const stop = (attempt: Attempt, verdict: Verdict): Decision => act({ ...attempt, phase: 'stopping', verdict }, 'kill');
const report = (attempt: Attempt, verdict: Verdict): Decision =>
  act({ ...attempt, phase: 'reported', verdict }, 'report');
const forget = (attempt: Attempt): Decision => act({ ...attempt, phase: 'forgotten' }, 'forget');

function admitted(attempt: Attempt, event: Event & { t: 'assigned' }, nowMs: number): Decision {
  if (event.obstacle) return { attempt, actions: ['decline'], reason: event.obstacle };
  const taken: Attempt = { ...attempt, phase: 'running', fence: event.fence, deadlineMs: nowMs + event.timeLimitMs };
  return act(taken, 'accept', 'start');
}

/** The assignment came again: the same fence gets the same answer, a lower one is old news, a higher one contradicts what
 * was signed before. */
function again(attempt: Attempt, fence: number, actions: Action[], reason = ''): Decision {
  if (fence > attempt.fence) return { attempt, actions: ['decline'], reason: 'fence_conflict' };
  return fence === attempt.fence ? { attempt, actions, reason } : nothing(attempt);
}

function whileRunning(attempt: Attempt, event: Event, nowMs: number): Decision {
  switch (event.t) {
    case 'assigned':
      return again(attempt, event.fence, ['accept']);
    case 'cancelled':
      return event.fence < attempt.fence ? nothing(attempt) : stop(attempt, CANCELLED);
    case 'ended':
      return report(attempt, event.verdict);
    case 'ticked':
      if (nowMs < attempt.deadlineMs) return nothing(attempt);
      return stop(attempt, failed('overdue', 'the time limit of the assignment has passed'));
    case 'quitting':
      return stop(attempt, failed('node_stopped', 'the provider has stopped sharing'));
    case 'settled':
    case 'unanswered':
      return stop({ ...attempt, settled: true }, CANCELLED);
    case 'report_acknowledged':
      return nothing(attempt);
  }
}

function whileStopping(attempt: Attempt, event: Event): Decision {
  switch (event.t) {
    case 'ended':
      // What it was told to stop for is what is reported.
      return attempt.settled ? forget(attempt) : report(attempt, attempt.verdict ?? CANCELLED);
    case 'settled':
    case 'unanswered':
      return act({ ...attempt, settled: true });
    case 'assigned':
      return again(attempt, event.fence, []);
    default:
      return nothing(attempt);
  }
}

function whileReported(attempt: Attempt, event: Event): Decision {
  switch (event.t) {
    case 'assigned':
      return again(attempt, event.fence, ['resend']);
    case 'cancelled':
      return act(attempt, 'resend');
    case 'report_acknowledged':
    case 'settled':
    case 'unanswered':
      return forget(attempt);
    default:
      return nothing(attempt);
  }
}

// Admission -----------------------------------------------------------------------------------------------------------

/** Kernels that a tab runs, and the version of each that its shaders are of. */
export const KERNELS: Record<string, number> = { matmul: 1, mandelbrot: 1, montecarlo_option: 1 };
export const BACKEND = 'webgpu';

export interface Facts {
  deviceId: string;
  kernels: string[];
  rateQuPerH: number;
  busy: boolean;
  fenceMax: number;
  draining: boolean;
}

/** Why this tab cannot take the assignment now; "" when it can. One word a cause. */
export function obstacle(assign: Assign, facts: Facts): string {
  if (facts.draining) return 'draining';
  if (assign.deviceId !== facts.deviceId) return 'unknown_device';
  if (assign.rental !== null) return 'not_rented';
  if (!facts.kernels.includes(assign.kernel)) return 'unknown_kernel';
  if (KERNELS[assign.kernel] !== assign.kernelVersion) return 'kernel_version';
  if (assign.backend !== BACKEND) return 'backend';
  if (assign.rateQuPerH < facts.rateQuPerH) return 'price';
  if (!wellOrdered(assign)) return 'bad_ranges';
  if (assign.fence < facts.fenceMax) return 'old_fence';
  return facts.busy ? 'busy' : '';
}

function wellOrdered({ ranges, unitsTotal }: Assign): boolean {
  let end = 0;
  for (const part of ranges) {
    if (!(end <= part.start && part.start < part.stop && part.stop <= unitsTotal)) return false;
    end = part.stop;
  }
  return ranges.length > 0;
}

// Chunks --------------------------------------------------------------------------------------------------------------

export const CHUNKS_MAX = 4096;
const TARGET_MS = 1_000;
const GROWTH_MAX = 4;

/** What is left of the ranges when so many of their units are done. */
export function rest(ranges: Range[], done: number): Range[] {
  const left: Range[] = [];
  for (const { start, stop } of ranges) {
    const from = Math.min(stop, start + done);
    done -= from - start;
    if (from < stop) left.push({ start: from, stop });
  }
  return left;
}

/** The next chunk: about a second of work, within the number of links that an attempt may have. */
export function nextChunk(left: Range[], units: number, made: number): Range | null {
  const first = left[0];
  if (!first) return null;
  const total = left.reduce((sum, { start, stop }) => sum + stop - start, 0);
  const spare = Math.max(1, CHUNKS_MAX - made - left.length);
  return { start: first.start, stop: Math.min(first.stop, first.start + Math.max(units, Math.ceil(total / spare))) };
}

/** How many units the next chunk aims at, after one of `units` took `ms`. */
export function paced(aim: number, units: number, ms: number): number {
  return Math.max(1, Math.floor(Math.min((units * TARGET_MS) / Math.max(ms, 0.01), aim * GROWTH_MAX)));
}

/** Of this attempt's own units, 0 to 1. */
export function fraction(done: number, ranges: Range[]): number {
  const total = ranges.reduce((sum, { start, stop }) => sum + stop - start, 0);
  return total ? Math.min(1, done / total) : 1;
}
