// SPDX-License-Identifier: Apache-2.0
/**
 * The page's side of WalletConnect v2 (specs.walletconnect.com, "Sign"): proposes a session by a code that a wallet
 * scans, asks the wallet, and ends it. One session at a time. Whoever is on the relay sees sealed bytes; what cannot be
 * opened, was there before, answers nothing or comes from nobody who may, changes nothing.
 */

import { hex, unhex } from '../../share/net/bytes';
import { agree, agreementPair, open, publicHalf, random, seal, topicOf } from './crypto';
import { WalletConnectError } from './errors';
import type { Relay } from './relay';
import {
  extended,
  failureOf,
  pairingUri,
  payloadOf,
  REQUEST_S,
  responderOf,
  settled,
  updated,
  WAYS,
  type Payload,
  type RpcError,
  type Session,
  type Settlement,
  type Way,
} from './rules';

export interface Metadata {
  name: string;
  description: string;
  url: string;
  icons: string[];
}
export interface Wish {
  readonly chain: string;
  readonly methods: readonly string[];
}
export interface Proposal {
  readonly uri: string;
  readonly expiresMs: number;
  /** Throws WalletConnectError: rejected, unanswered, wrong, away. */
  readonly session: Promise<Session>;
  /** Nobody waits any more; the wallet is told. */
  cancel(): void;
}
export interface ClientOptions {
  relay: Relay;
  metadata: Metadata;
  kept: Session | null;
  /** Every change, null at its end; it is kept before the wallet hears that it was. */
  changed: (session: Session | null) => void;
}

interface Pairing {
  readonly topic: string;
  readonly key: Uint8Array;
  readonly id: number;
  readonly pair: CryptoKeyPair;
  readonly wish: Wish;
  settlement: Settlement | null;
  done(session: Session): void;
  failed(problem: WalletConnectError): void;
}
interface Asked {
  readonly topic: string;
  done(result: unknown): void;
  failed(problem: WalletConnectError): void;
}

const KEY = 32;
const TIMER_MS_MAX = 86_400_000;
const USER_DISCONNECTED = { code: 6000, message: 'User disconnected.' };
const nowS = (): number => Math.floor(Date.now() / 1000);

export class Client {
  session: Session | null;
  #pairing: Pairing | null = null;
  #asked = new Map<number, Asked>();
  #lastId = 0;
  #expiry: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly options: ClientOptions) {
    this.session = options.kept;
    if (this.session) this.#attend(this.session);
  }

  /** A code for a wallet to scan. Throws WalletConnectError. */
  async propose(wish: Wish): Promise<Proposal> {
    this.#pairing?.failed(new WalletConnectError('ended'));
    const pair = await agreementPair();
    const key = random(KEY);
    const topic = await topicOf(key);
    const expiryS = nowS() + REQUEST_S;
    const id = this.#newId();
    const params = {
      requiredNamespaces: { [wish.chain.split(':')[0] ?? '']: { chains: [wish.chain], methods: wish.methods, events: [] } },
      optionalNamespaces: {},
      relays: [{ protocol: 'irn' }],
      proposer: { publicKey: await publicHalf(pair), metadata: this.options.metadata },
      expiryTimestamp: expiryS,
      pairingTopic: topic,
    };
    let cancel = (): void => undefined;
    const session = new Promise<Session>((done, failed) => {
      const timer = setTimeout(() => this.#pairing?.failed(new WalletConnectError('unanswered')), REQUEST_S * 1000);
      const over = (): void => {
        clearTimeout(timer);
        if (this.#pairing?.topic === topic) this.#pairing = null;
        this.options.relay.forget(topic);
      };
      const pairing: Pairing = {
        ...{ topic, key, id, pair, wish, settlement: null },
        done: (found) => (over(), done(found)),
        failed: (problem) => {
          const waited = pairing.settlement;
          if (waited && this.session?.topic !== waited.topic) this.options.relay.forget(waited.topic);
          over();
          failed(problem);
        },
      };
      this.#pairing = pairing;
      cancel = () => {
        if (this.#pairing !== pairing) return;
        pairing.failed(new WalletConnectError('ended'));
        this.#say(topic, key, { id: this.#newId(), method: 'wc_pairingDelete', params: USER_DISCONNECTED }, WAYS.pairingDelete);
      };
    });
    session.catch(() => undefined);
    try {
      const deadlineMs = expiryS * 1000;
      await this.options.relay.subscribe(topic, deadlineMs);
      await this.#publish(topic, key, { id, method: 'wc_sessionPropose', params }, WAYS.propose, deadlineMs);
    } catch (problem) {
      if (this.#pairing?.topic === topic) this.#pairing.failed(problem as WalletConnectError);
      throw problem;
    }
    return { uri: pairingUri(topic, hex(key), expiryS), expiresMs: expiryS * 1000, session, cancel };
  }

  /** What the wallet answers. Throws WalletConnectError. After an abort nobody waits, and what the relay has not got yet is
   * not said; it ends nothing that the wallet may do. */
  async request(method: string, params: object, signal?: AbortSignal): Promise<unknown> {
    const { session } = this;
    if (!session) throw new WalletConnectError('ended');
    if (signal?.aborted) throw new WalletConnectError('unanswered');
    if (!session.methods.includes(method)) throw new WalletConnectError('wrong', `the wallet has not agreed to ${method}`);
    const id = this.#newId();
    const deadlineMs = Date.now() + REQUEST_S * 1000;
    const request = { method, params, expiryTimestamp: Math.floor(deadlineMs / 1000) };
    let stop = (): void => undefined;
    const answer = new Promise<unknown>((done, failed) => {
      stop = () => failed(new WalletConnectError('unanswered'));
      this.#asked.set(id, { topic: session.topic, done, failed });
    });
    const timer = setTimeout(stop, REQUEST_S * 1000);
    signal?.addEventListener('abort', stop);
    try {
      const said = { id, method: 'wc_sessionRequest', params: { request, chainId: session.chain } };
      // An answer may overtake the relay's word that it has the question.
      const sent = this.#publish(session.topic, unhex(session.key), said, WAYS.request, deadlineMs, signal);
      return await Promise.race([answer, sent.then(() => answer)]);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', stop);
      this.#asked.delete(id);
    }
  }

  /** Over here at once; the wallet hears of it when the relay does. */
  async disconnect(): Promise<void> {
    const { session } = this;
    if (!session) return;
    const key = unhex(session.key);
    const told = this.#publish(session.topic, key, this.#goodbye(), WAYS.delete, Date.now() + REQUEST_S * 1000);
    this.#end();
    await told.catch(() => undefined);
  }

  /** Another page of this browser changed it. */
  adopt(session: Session | null): void {
    if (session?.topic === this.session?.topic) this.session = session;
    else {
      if (this.session) this.#leave(this.session);
      this.session = session;
      if (session) this.#attend(session);
    }
  }

  /** For the relay: a message of a topic that is listened to. */
  async received(topic: string, message: string): Promise<void> {
    const key = this.#keyOf(topic);
    const opened = key && open(key, message);
    const payload = opened ? payloadOf(opened) : null;
    if (!payload) return;
    if (payload.kind === 'request') this.#requested(topic, payload);
    else if (this.#pairing?.topic === topic) await this.#answered(this.#pairing, payload);
    else {
      const asked = this.#asked.get(payload.id);
      if (asked?.topic !== topic) return;
      if (payload.kind === 'result') asked.done(payload.result);
      else asked.failed(failureOf(payload.error));
    }
  }

  #keyOf(topic: string): Uint8Array | null {
    if (this.session?.topic === topic) return unhex(this.session.key);
    if (this.#pairing?.topic === topic) return this.#pairing.key;
    const waited = this.#pairing?.settlement;
    return waited?.topic === topic ? unhex(waited.key) : null;
  }

  /** To the proposal, once: a second answer is of somebody who saw the code, or of the relay. */
  async #answered(pairing: Pairing, payload: Exclude<Payload, { kind: 'request' }>): Promise<void> {
    if (payload.id !== pairing.id || pairing.settlement) return;
    if (payload.kind === 'error') {
      pairing.failed(failureOf(payload.error));
      return;
    }
    const responder = responderOf(payload.result);
    try {
      if (!responder) throw new RangeError('no public key');
      const key = await agree(pairing.pair.privateKey, responder);
      const topic = await topicOf(key);
      if (this.#pairing !== pairing) return;
      pairing.settlement = { topic, key: hex(key), responder, chain: pairing.wish.chain, methods: pairing.wish.methods };
      void this.options.relay.subscribe(topic, Date.now() + REQUEST_S * 1000).catch(() => undefined);
    } catch {
      pairing.failed(new WalletConnectError('wrong'));
    }
  }

  #requested(topic: string, { id, method, params }: Extract<Payload, { kind: 'request' }>): void {
    const pairing = this.#pairing;
    if (method === 'wc_sessionSettle' && pairing?.settlement?.topic === topic) this.#settle(pairing, pairing.settlement, id, params);
    const { session } = this;
    if (session?.topic !== topic) return;
    const reply = (way: Way, error?: RpcError): void =>
      this.#say(topic, unhex(session.key), error ? { id, error } : { id, result: true }, way);
    if (method === 'wc_sessionPing') reply(WAYS.pong);
    else if (method === 'wc_sessionDelete') {
      reply(WAYS.deleted);
      this.#end();
    } else if (method === 'wc_sessionUpdate') {
      const next = updated(session, id, params);
      if (next) this.#change(next);
      reply(WAYS.updated, next ? undefined : { code: 1003, message: 'Invalid update request' });
    } else if (method === 'wc_sessionExtend') {
      const next = extended(session, id, params, nowS());
      if (next) this.#change(next);
      reply(WAYS.extended, next ? undefined : { code: 1004, message: 'Invalid extend request' });
    } else if (method === 'wc_sessionEvent') reply(WAYS.eventTaken, { code: 3002, message: 'Unauthorized event' });
    // A request on it is another page's of this browser, which the wallet answers.
  }

  #settle(pairing: Pairing, asked: Settlement, id: number, params: Readonly<Record<string, unknown>>): void {
    const found = settled(params, asked, nowS());
    const key = unhex(asked.key);
    if ('code' in found) {
      this.#say(asked.topic, key, { id, error: found }, WAYS.settled);
      pairing.failed(new WalletConnectError('wrong', found.message));
      return;
    }
    const before = this.session;
    this.#change(found);
    if (before) {
      this.#leave(before);
      this.#say(before.topic, unhex(before.key), this.#goodbye(), WAYS.delete);
    }
    this.#watch(found);
    this.#say(asked.topic, key, { id, result: true }, WAYS.settled);
    pairing.done(found);
  }

  #change(session: Session): void {
    this.session = session;
    this.options.changed(session);
  }

  #attend(session: Session): void {
    void this.options.relay.subscribe(session.topic, Date.now() + REQUEST_S * 1000).catch(() => undefined);
    this.#watch(session);
  }

  #watch(session: Session): void {
    clearTimeout(this.#expiry);
    const left = (this.session?.expiryS ?? session.expiryS) * 1000 - Date.now();
    this.#expiry = setTimeout(() => {
      if (this.session?.topic !== session.topic) return;
      if (this.session.expiryS <= nowS()) this.#end();
      else this.#watch(session);
    }, Math.max(0, Math.min(left, TIMER_MS_MAX)));
  }

  #leave(session: Session): void {
    clearTimeout(this.#expiry);
    this.options.relay.forget(session.topic);
    for (const one of this.#asked.values()) if (one.topic === session.topic) one.failed(new WalletConnectError('ended'));
  }

  #end(): void {
    if (!this.session) return;
    this.#leave(this.session);
    this.session = null;
    this.options.changed(null);
  }

  #goodbye(): object {
    return { id: this.#newId(), method: 'wc_sessionDelete', params: USER_DISCONNECTED };
  }

  /** For what nobody waits for. */
  #say(topic: string, key: Uint8Array, said: object, way: Way): void {
    void this.#publish(topic, key, said, way, Date.now() + way.ttl * 1000).catch(() => undefined);
  }

  async #publish(topic: string, key: Uint8Array, said: object, way: Way, deadlineMs: number, signal?: AbortSignal): Promise<void> {
    await this.options.relay.publish(topic, seal(key, JSON.stringify({ jsonrpc: '2.0', ...said })), way, deadlineMs, signal);
  }

  /** Milliseconds and three digits of chance; each is larger than the one before. */
  #newId(): number {
    this.#lastId = Math.max(this.#lastId + 1, Date.now() * 1000 + Math.floor(Math.random() * 1000));
    return this.#lastId;
  }
}
