// SPDX-License-Identifier: Apache-2.0
/**
 * What must survive a reload: the key, what the market is, the attempts in hand with their links, and what was earned.
 * A link is kept before it is said; what is lost all the same is only said twice.
 */

import { BEGINNING, type Link, type Outcome, type Place, type Range } from './messages';
import type { Earning } from './types';
import type { Bytes } from './bytes';

export interface Made {
  link: Link;
  fraction: number;
  elapsedMs: number;
}
export interface Reported {
  outcome: Outcome;
  failure: { code: string; detail: string } | null;
  finishedMs: number;
}
export interface Sending {
  units: Range;
  content: Bytes;
  ms: number;
}
/** One attempt as it is kept. Its body is the assignment as it came, so that its digests are of the same bytes. */
export interface Saved {
  attemptId: string;
  assignBody: Bytes;
  startedMs: number;
  links: Made[];
  /** What was being sent: some of it may be in the store, where nothing else may take its place after a reload. */
  sending: Sending | null;
  acknowledged: number[];
  report: Reported | null;
}
/** The market that the tab belongs to; another key or network is another market. */
export interface Market {
  network: string;
  coordinatorKey: string;
}

export interface Journal {
  /** The key pair, or what `make` gives, kept from now on. */
  keyPair(make: () => Promise<CryptoKeyPair>): Promise<CryptoKeyPair>;
  market(): Promise<Market | null>;
  setMarket(market: Market): Promise<void>;
  attempts(): Promise<Saved[]>;
  /** In place of the one before. */
  save(attempt: Saved): Promise<void>;
  forget(attemptId: string): Promise<void>;
  earnings(): Promise<Earning[]>;
  /** With the coordinator's signed settlement. The same attempt again changes nothing; whether it was news. */
  earn(earning: Earning, settlement: Bytes): Promise<boolean>;
  /** Up to where settlements were told again. */
  toldUpTo(): Promise<Place>;
  setToldUpTo(place: Place): Promise<void>;
  /** The highest session so far: one that is not above it is a recording. */
  incarnation(): Promise<number>;
  setIncarnation(incarnation: number): Promise<void>;
}

/** For tests, and nothing else: a reload would forget it. */
export class MemoryJournal implements Journal {
  #pair: CryptoKeyPair | null = null;
  #market: Market | null = null;
  #incarnation = 0;
  #toldUpTo = BEGINNING;
  readonly #attempts = new Map<string, Saved>();
  readonly #earnings = new Map<string, Earning>();

  async keyPair(make: () => Promise<CryptoKeyPair>): Promise<CryptoKeyPair> {
    this.#pair ??= await make();
    return this.#pair;
  }
  async market(): Promise<Market | null> {
    return this.#market;
  }
  async setMarket(market: Market): Promise<void> {
    this.#market = market;
  }
  async attempts(): Promise<Saved[]> {
    return structuredClone([...this.#attempts.values()]);
  }
  async save(attempt: Saved): Promise<void> {
    this.#attempts.set(attempt.attemptId, structuredClone(attempt));
  }
  async forget(attemptId: string): Promise<void> {
    this.#attempts.delete(attemptId);
  }
  async earnings(): Promise<Earning[]> {
    return [...this.#earnings.values()];
  }
  async earn(earning: Earning): Promise<boolean> {
    const news = !this.#earnings.has(earning.attemptId);
    if (news) this.#earnings.set(earning.attemptId, earning);
    return news;
  }
  async toldUpTo(): Promise<Place> {
    return this.#toldUpTo;
  }
  async setToldUpTo(place: Place): Promise<void> {
    this.#toldUpTo = place;
  }
  async incarnation(): Promise<number> {
    return this.#incarnation;
  }
  async setIncarnation(incarnation: number): Promise<void> {
    this.#incarnation = incarnation;
  }
}

