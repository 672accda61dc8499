// SPDX-License-Identifier: Apache-2.0
/**
 * What the tab has to say: links and reports until they are acknowledged, in their order, so that a report follows its
 * links; everything else once. A new session begins again with the oldest.
 */

import type { Fields } from './msgpack';

export const RESEND_MS = 15_000;
export const SENDS_MAX = 20;
const WINDOW = 16;

interface Kept {
  attemptId: string;
  link: number | null;
  message: Fields;
  sends: number;
  sentMs: number | null;
}

export class Outbox {
  readonly #kept: Kept[] = [];

  /** `link` null: the report. */
  keep(attemptId: string, link: number | null, message: Fields): void {
    this.#kept.push({ attemptId, link, message, sends: 0, sentMs: null });
  }

  /** False when nothing of that name waits: a duplicate. */
  acknowledge(attemptId: string, link: number | null): boolean {
    const at = this.#kept.findIndex((one) => one.attemptId === attemptId && one.link === link);
    if (at >= 0) this.#kept.splice(at, 1);
    return at >= 0;
  }

  /** Do not wait for the usual time. */
  resend(attemptId: string): void {
    for (const one of this.#kept) if (one.attemptId === attemptId && one.link === null) one.sentMs = null;
  }

  forget(attemptId: string): void {
    for (let at = this.#kept.length - 1; at >= 0; at -= 1) if (this.#kept[at]?.attemptId === attemptId) this.#kept.splice(at, 1);
  }

  /** Nothing that was sent before counts: a session begins. */
  restart(): void {
    for (const one of this.#kept) one.sentMs = null;
  }

  get size(): number {
    return this.#kept.length;
  }

  /** What to send now, counted as sent; `unanswered`: an attempt that was sent for too often in vain. */
  due(nowMs: number): { messages: Fields[]; unanswered: string | null } {
    if (this.#kept.some((one) => one.sentMs !== null && one.sentMs < nowMs - RESEND_MS)) this.restart();
    const under = this.#kept.filter((one) => one.sentMs !== null).length;
    const due = this.#kept.filter((one) => one.sentMs === null).slice(0, Math.max(0, WINDOW - under));
    const vain = due.find((one) => one.sends >= SENDS_MAX);
    if (vain) return { messages: [], unanswered: vain.attemptId };
    for (const one of due) {
      one.sentMs = nowMs;
      one.sends += 1;
    }
    return { messages: due.map((one) => one.message), unanswered: null };
  }
}
