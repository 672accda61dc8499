// SPDX-License-Identifier: Apache-2.0
/** What the page sees of a tab that shares its GPU. */

import type { Check, Way } from '../gpu/port';

export type Phase =
  | 'off'
  | 'connecting'
  /** In the market, waiting for work. */
  | 'listed'
  | 'running'
  /** Out of the market by its owner's wish; what runs is finished first. */
  | 'paused'
  /** The connection is gone and is being sought again; what runs goes on. */
  | 'lost';

export type ProblemCode =
  /** The browser cannot make or keep the key that signs. */
  | 'no_key'
  /** Nothing can be kept here (private window, storage switched off): a reload would forget the job in hand. */
  | 'no_storage'
  /** Another tab of this browser shares already. */
  | 'other_tab'
  /** The same key is used somewhere else, and took over. */
  | 'taken_over'
  | 'unreachable'
  /** The market answered, and refused; `detail` is its words. */
  | 'refused'
  /** The market is not the one that this tab knew: another network or key. */
  | 'other_market'
  | 'fallback_adapter'
  /** The GPU failed; `detail` says how. */
  | 'gpu'
  | 'internal';

export interface Problem {
  code: ProblemCode;
  detail: string;
}

export interface AttemptState {
  jobId: string;
  kernel: string;
  /** Of this tab's own part of the job. */
  fraction: number;
  elapsedMs: number;
}

export interface Earning {
  jobId: string;
  attemptId: string;
  verdict: string;
  paidQu: number;
  decidedMs: number;
}

export interface ProviderState {
  phase: Phase;
  /** "" until the key is there. */
  peerId: string;
  accountId?: string;
  listingId?: string;
  attempt?: AttemptState;
  /** QU, over all settlements that this browser keeps. */
  earned: number;
  /** The newest first. */
  earnings: Earning[];
  problem?: Problem;
}

export interface ProviderSettings {
  rateQuPerHour: number;
  region?: string;
  /** ISO 3166 alpha-2; "" or left out: not said. */
  country?: string;
  /** The most of the card's time that is used, over 0 to 1. */
  throttle: number;
}

/** As Svelte's stores: `run` is called at once and at each change; the answer ends it. */
export interface Readable<T> {
  subscribe(run: (value: T) => void): () => void;
}

/**
 * The contract of `provider.ts: Provider`, which is made with a `Gpu` and these settings.
 *
 * `start` asks for the key, connects and lists; it rejects never, `state.problem` says what is wrong. `stop` hands the
 * job in hand back, says goodbye and resolves when that is done (within a few seconds, also without a connection).
 */
export interface Sharing {
  readonly state: Readable<ProviderState>;
  start(): Promise<void>;
  pause(): void;
  resume(): void;
  stop(): Promise<void>;
  setRate(rateQuPerHour: number): void;
  setThrottle(share: number): void;
  /** What the card's self-test found, for everybody who looks at the offer. */
  told(checks: Check[], tookMs: number): void;
  /** This clock minus the market's, in milliseconds; null without a session. */
  offsetMs(): number | null;
  /** To the artifact store and back, measured anew; null without a session. */
  way(): Promise<Way | null>;
}
