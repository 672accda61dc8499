// SPDX-License-Identifier: Apache-2.0
/**
 * A line to WalletConnect's relay (specs.walletconnect.com, "Relay Server RPC"): it stores sealed messages by topic and
 * hands them on. It is trusted with nothing but that; what it says about a message is not read.
 */

import { backoffMs } from '../../share/net/backoff';
import { hex, sha256, utf8 } from '../../share/net/bytes';
import { relayToken, type ClientKey } from './crypto';
import { WalletConnectError, type Failure } from './errors';
import type { Way } from './rules';

export type LineState = 'closed' | 'connecting' | 'open' | 'away' | 'refused';

/** The part of a WebSocket that is used. */
export interface Socket {
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  send(text: string): void;
  close(): void;
}
export interface RelayOptions {
  url: string;
  projectId: string;
  key: () => Promise<ClientKey>;
  received: (topic: string, message: string) => Promise<void>;
  changed: (state: LineState) => void;
  connect?: (url: string) => Socket;
  /** The first wait before trying again; it doubles. */
  retryMs?: number;
}

const ANSWER_MS = 10_000;
const OPEN_MS = 15_000;
const RETRY_MS = 1_000;
const RETRY_MS_MAX = 30_000;
const FRAME_MAX = 1_000_000;
const SEEN_MAX = 2_000;
/** The relay refuses the project id, or the token. */
const UNAUTHORIZED = 3000;
/** Ids of the relay have more digits than a number holds. */
const ID = /"id"\s*:\s*(\d+)/;

interface Waiting {
  done(result: unknown): void;
  failed(problem: unknown): void;
}
class Interrupted extends Error {}

export class Relay {
  state: LineState = 'closed';
  #socket: Socket | null = null;
  #wanted = false;
  #tries = 0;
  /** Why it was given up. */
  #refusal: Failure = 'refused';
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Of each topic the relay's name for the subscription, or "" before it has told. */
  #topics = new Map<string, string>();
  #waiting = new Map<string, Waiting>();
  #seen = new Set<string>();
  #inbox: Promise<void> = Promise.resolve();
  #turned: (() => void)[] = [];

  constructor(private readonly options: RelayOptions) {}

  /** Connects, and again whenever the line breaks, until `close`. */
  open(): void {
    this.#wanted = true;
    if (!this.#socket && this.state !== 'connecting') void this.#dial();
  }

  close(): void {
    this.#wanted = false;
    this.#drop(new WalletConnectError('away'));
    this.#turn('closed');
  }

  /** The page was asleep, or the network came back: the line may be dead without a word, so it is asked. */
  wake(): void {
    if (!this.#wanted) return;
    if (this.state !== 'open') {
      this.#tries = 0;
      if (this.state !== 'connecting') void this.#dial();
      return;
    }
    const socket = this.#socket;
    const topics = [...this.#topics.keys()];
    void this.#ask('irn_batchSubscribe', { topics }, ANSWER_MS / 2).then(
      (ids) => topics.forEach((topic, at) => this.#named(topic, Array.isArray(ids) ? ids[at] : '')),
      () => this.#socket === socket && this.#broken(),
    );
  }

  /** Settled when the relay knows of it. Throws WalletConnectError after the deadline. */
  async subscribe(topic: string, deadlineMs: number): Promise<void> {
    this.#topics.set(topic, '');
    this.#named(topic, await this.#insist('irn_subscribe', { topic }, deadlineMs));
  }

  /** Nothing of it is heard any more, whether or not the relay was told. */
  forget(topic: string): void {
    const id = this.#topics.get(topic);
    this.#topics.delete(topic);
    if (id && this.state === 'open') void this.#ask('irn_unsubscribe', { topic, id }, ANSWER_MS).catch(() => undefined);
  }

  #named(topic: string, id: unknown): void {
    if (this.#topics.has(topic)) this.#topics.set(topic, String(id ?? ''));
  }

  /** Settled when the relay has it; said again over a new line if the old one broke meanwhile, unless it was aborted. */
  async publish(topic: string, message: string, way: Way, deadlineMs: number, signal?: AbortSignal): Promise<void> {
    const { ttl, tag, prompt = false } = way;
    await this.#insist('irn_publish', { topic, message, ttl, tag, prompt }, deadlineMs, signal);
  }

  async #insist(method: string, params: object, deadlineMs: number, signal?: AbortSignal): Promise<unknown> {
    for (;;) {
      if (signal?.aborted) throw new WalletConnectError('unanswered');
      const left = deadlineMs - Date.now();
      if (this.state === 'refused') throw new WalletConnectError(this.#refusal);
      if (left <= 0 || !this.#wanted) throw new WalletConnectError('away');
      try {
        if (this.state === 'open') {
          return await this.#ask(method, params, Math.min(left, ANSWER_MS));
        }
        await this.#turnedWithin(left);
      } catch (problem) {
        if (!(problem instanceof Interrupted)) throw problem;
      }
    }
  }

  #turnedWithin(ms: number): Promise<void> {
    return new Promise((done) => {
      const timer = setTimeout(done, ms);
      this.#turned.push(() => {
        clearTimeout(timer);
        done();
      });
    });
  }

  #ask(method: string, params: object, ms: number): Promise<unknown> {
    const socket = this.#socket;
    if (!socket) return Promise.reject(new Interrupted());
    const id = messageId();
    return new Promise<unknown>((done, failed) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        if (this.#socket === socket) this.#broken();
        failed(new Interrupted());
      }, ms);
      const over = (): boolean => this.#waiting.delete(id) && (clearTimeout(timer), true);
      this.#waiting.set(id, {
        done: (result) => over() && done(result),
        failed: (problem) => over() && failed(problem),
      });
      socket.send(JSON.stringify({ id, jsonrpc: '2.0', method, params }));
    });
  }

  async #dial(): Promise<void> {
    clearTimeout(this.#timer);
    this.#turn('connecting');
    let address: string;
    try {
      const auth = await relayToken(await this.options.key(), this.options.url, Date.now());
      // The relay then says why it refuses by a close, which a page can read, and not by the status of a failed opening.
      const asked = new URLSearchParams({ auth, projectId: this.options.projectId, useOnCloseEvent: 'true' });
      address = `${this.options.url}/?${asked}`;
    } catch {
      this.#giveUp('unsupported');
      return;
    }
    if (!this.#wanted || this.#socket) return;
    const socket = (this.options.connect ?? connected)(address);
    this.#socket = socket;
    this.#timer = setTimeout(() => this.#socket === socket && this.#broken(), OPEN_MS);
    socket.onopen = () => this.#socket === socket && this.#opened();
    socket.onmessage = (event) => this.#socket === socket && this.#heard(event.data, socket);
    socket.onclose = (event) => {
      if (this.#socket !== socket) return;
      if (event.code === UNAUTHORIZED) this.#giveUp('refused');
      else this.#broken();
    };
  }

  #opened(): void {
    clearTimeout(this.#timer);
    this.#turn('open');
    if (this.#topics.size) this.wake();
  }

  #broken(): void {
    this.#drop(new Interrupted());
    if (!this.#wanted) return;
    const wait = backoffMs(this.#tries, this.options.retryMs ?? RETRY_MS, RETRY_MS_MAX);
    this.#tries += 1;
    this.#timer = setTimeout(() => void this.#dial(), wait);
    this.#turn('away');
  }

  #giveUp(why: Failure): void {
    this.#wanted = false;
    this.#refusal = why;
    this.#drop(new WalletConnectError(why));
    this.#turn('refused');
  }

  #drop(problem: Error): void {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    for (const one of [...this.#waiting.values()]) one.failed(problem);
  }

  #turn(state: LineState): void {
    this.state = state;
    for (const go of this.#turned.splice(0)) go();
    this.options.changed(state);
  }

  #heard(data: unknown, socket: Socket): void {
    if (typeof data !== 'string' || data.length > FRAME_MAX) return;
    const frame = frameOf(data);
    if (!frame) return;
    // Not at its opening: one that takes every line and then drops it is not to be asked each second.
    this.#tries = 0;
    if (frame.method === undefined) {
      const waiting = this.#waiting.get(frame.id);
      if (frame.error) waiting?.failed(new WalletConnectError('away', String(frame.error.message ?? '')));
      else waiting?.done(frame.result);
      return;
    }
    const { topic, message } = frame.params?.data ?? {};
    if (frame.method !== 'irn_subscription' || typeof topic !== 'string' || typeof message !== 'string') return;
    // One after the other, and acknowledged when what it changes is kept: what is not, comes again.
    this.#inbox = this.#inbox.then(async () => {
      await this.#take(topic, message);
      if (this.#socket === socket) socket.send(`{"id":${frame.id},"jsonrpc":"2.0","result":true}`);
    });
  }

  async #take(topic: string, message: string): Promise<void> {
    if (!this.#topics.has(topic) || !this.#see(await fingerprint(topic, message))) return;
    await this.options.received(topic, message).catch(() => undefined);
  }

  /** False: it was here before. */
  #see(one: string): boolean {
    if (this.#seen.has(one)) return false;
    this.#seen.add(one);
    for (const oldest of this.#seen) {
      if (this.#seen.size <= SEEN_MAX) break;
      this.#seen.delete(oldest);
    }
    return true;
  }
}

const connected = (url: string): Socket => new WebSocket(url) as unknown as Socket;
const fingerprint = async (topic: string, message: string): Promise<string> => hex(await sha256(utf8(`${topic} ${message}`)));

/** 13 digits of time and 6 of chance, as the specification suggests. */
function messageId(): string {
  const chance = (crypto.getRandomValues(new Uint32Array(1))[0] ?? 0) % 1_000_000;
  return `${Date.now()}${String(chance).padStart(6, '0')}`;
}

interface Frame {
  id: string;
  method?: string;
  params?: { data?: { topic?: unknown; message?: unknown } };
  result?: unknown;
  error?: { message?: unknown } | null;
}

function frameOf(text: string): Frame | null {
  try {
    const told = JSON.parse(text.replace(ID, '"id":"$1"')) as Frame | null;
    return told && typeof told === 'object' && /^\d+$/.test(String(told.id)) ? { ...told, id: String(told.id) } : null;
  } catch {
    return null;
  }
}
