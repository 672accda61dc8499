// SPDX-License-Identifier: Apache-2.0
/**
 * The other side for tests: a relay in memory and a wallet whose cryptography is Node's own (OpenSSL), so that the page's
 * is held to the specification and not to itself.
 */

import assert from 'node:assert/strict';
import { createCipheriv, createDecipheriv, createHash, createPublicKey, diffieHellman, generateKeyPairSync, hkdfSync, randomBytes } from 'node:crypto';
import { Client, type Proposal } from '../../src/lib/walletconnect/client';
import { clientKey } from '../../src/lib/walletconnect/crypto';
import { Relay, type LineState, type Socket } from '../../src/lib/walletconnect/relay';
import type { Session } from '../../src/lib/walletconnect/rules';

export const CHAIN = 'qubic:devnet';
export const METHODS = ['qubic_requestAccounts', 'qubic_sign'];
export const IDENTITY = 'A'.repeat(60);
export const OTHER = 'B'.repeat(60);
const SPKI = Buffer.from('302a300506032b656e032100', 'hex');

export interface Published {
  topic: string;
  message: string;
  tag: number;
  ttl: number;
}
type Rpc = { id: string; method?: string; params?: Record<string, unknown>; result?: unknown };

/** Hands on to the page whatever the test says, and keeps what the page published. */
export class MemoryRelay {
  published: Published[] = [];
  acknowledged: string[] = [];
  subscribed = new Set<string>();
  sockets: FakeSocket[] = [];
  /** What a new line is closed with at once; 0: it opens. */
  closeWith = 0;
  #waiting: { ready: () => boolean; go: () => void }[] = [];
  #next = 1_700_000_000_000_000_001n;

  connect = (url: string): Socket => {
    const socket = new FakeSocket(this, url);
    this.sockets.push(socket);
    return socket;
  };
  get line(): FakeSocket {
    const socket = this.sockets.at(-1);
    assert.ok(socket);
    return socket;
  }
  heard(socket: FakeSocket, text: string): void {
    const asked = JSON.parse(text.replace(/"id":(\d+)/, '"id":"$1"')) as Rpc;
    if (asked.method === undefined) this.acknowledged.push(asked.id);
    else {
      const { topic, topics } = asked.params ?? {};
      if (asked.method === 'irn_publish') this.published.push(asked.params as unknown as Published);
      if (asked.method === 'irn_subscribe') this.subscribed.add(String(topic));
      if (asked.method === 'irn_batchSubscribe') for (const one of topics as string[]) this.subscribed.add(one);
      if (asked.method === 'irn_unsubscribe') this.subscribed.delete(String(topic));
      if (!this.silent) socket.say(JSON.stringify({ id: asked.id, jsonrpc: '2.0', result: asked.method === 'irn_batchSubscribe' ? [] : true }));
    }
    this.#look();
  }
  /** It takes everything and answers nothing. */
  silent = false;

  /** With an id that no number holds, as the relay's are. */
  deliver(topic: string, message: string): string {
    const id = String(this.#next++);
    const data = { topic, message, publishedAt: 0, tag: 0 };
    this.line.say(`{"id":${id},"jsonrpc":"2.0","method":"irn_subscription","params":{"id":"s","data":${JSON.stringify(data)}}}`);
    return id;
  }
  /** And waits until the page has done with it. */
  async told(topic: string, message: string): Promise<void> {
    const id = this.deliver(topic, message);
    await this.until(() => this.acknowledged.includes(id));
  }
  until(ready: () => boolean): Promise<void> {
    return new Promise((go) => {
      this.#waiting.push({ ready, go });
      this.#look();
    });
  }
  #look(): void {
    this.#waiting = this.#waiting.filter((one) => !one.ready() || one.go());
  }
}

export class FakeSocket implements Socket {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  #open = true;

  constructor(
    readonly relay: MemoryRelay,
    readonly url: string,
  ) {
    queueMicrotask(() => (relay.closeWith ? this.end(relay.closeWith) : this.onopen?.()));
  }
  send(text: string): void {
    if (this.#open) this.relay.heard(this, text);
  }
  say(text: string): void {
    queueMicrotask(() => this.#open && this.onmessage?.({ data: text }));
  }
  end(code = 1006): void {
    if (!this.#open) return;
    this.#open = false;
    this.onclose?.({ code, reason: '' });
  }
  close(): void {
    this.#open = false;
  }
}

export function sealed(key: string, said: unknown): string {
  const iv = randomBytes(12);
  const cipher = createCipheriv('chacha20-poly1305', Buffer.from(key, 'hex'), iv, { authTagLength: 16 });
  const text = Buffer.concat([cipher.update(JSON.stringify(said)), cipher.final()]);
  return Buffer.concat([Buffer.of(0), iv, text, cipher.getAuthTag()]).toString('base64');
}
export function opened(key: string, message: string): Record<string, unknown> {
  const bytes = Buffer.from(message, 'base64');
  const cipher = createDecipheriv('chacha20-poly1305', Buffer.from(key, 'hex'), bytes.subarray(1, 13), { authTagLength: 16 });
  cipher.setAuthTag(bytes.subarray(-16));
  return JSON.parse(Buffer.concat([cipher.update(bytes.subarray(13, -16)), cipher.final()]).toString()) as Record<string, unknown>;
}

export interface Bench {
  relay: MemoryRelay;
  line: Relay;
  client: Client;
  states: LineState[];
  kept: (Session | null)[];
}
export function bench(kept: Session | null = null): Bench {
  const relay = new MemoryRelay();
  const found: Bench = { relay, states: [], kept: [] } as unknown as Bench;
  const key = clientKey();
  found.line = new Relay({
    ...{ url: 'wss://relay.test', projectId: 'p', key: () => key, connect: relay.connect, retryMs: 1 },
    received: (topic, message) => found.client.received(topic, message),
    changed: (state) => found.states.push(state),
  });
  const metadata = { name: 'n', description: 'd', url: 'u', icons: [] };
  found.client = new Client({ relay: found.line, metadata, kept, changed: (session) => found.kept.push(session) });
  found.line.open();
  return found;
}

/** The wallet after it scanned: its keys, and what it says. */
export class Peer {
  readonly pairing: string;
  readonly pairingKey: string;
  readonly publicKey: string;
  readonly key: string;
  readonly topic: string;
  readonly proposal: { id: number; params: Record<string, unknown> };

  constructor(
    readonly on: Bench,
    uri: string,
  ) {
    const [, topic = '', query = ''] = /^wc:([0-9a-f]{64})@2\?(.*)$/.exec(uri) ?? [];
    this.pairing = topic;
    this.pairingKey = new URLSearchParams(query).get('symKey') ?? '';
    const asked = on.relay.published.find((one) => one.topic === topic && one.tag === 1100);
    assert.ok(asked);
    this.proposal = opened(this.pairingKey, asked.message) as unknown as Peer['proposal'];
    const mine = generateKeyPairSync('x25519');
    this.publicKey = mine.publicKey.export({ format: 'der', type: 'spki' }).subarray(-32).toString('hex');
    const { publicKey } = this.proposal.params['proposer'] as { publicKey: string };
    const theirs = createPublicKey({ key: Buffer.concat([SPKI, Buffer.from(publicKey, 'hex')]), format: 'der', type: 'spki' });
    const shared = diffieHellman({ privateKey: mine.privateKey, publicKey: theirs });
    this.key = Buffer.from(hkdfSync('sha256', shared, '', '', 32)).toString('hex');
    this.topic = createHash('sha256').update(Buffer.from(this.key, 'hex')).digest('hex');
  }

  agreement(): string {
    const result = { relay: { protocol: 'irn' }, responderPublicKey: this.publicKey };
    return sealed(this.pairingKey, { id: this.proposal.id, jsonrpc: '2.0', result });
  }
  refusal(code = 5000): string {
    return sealed(this.pairingKey, { id: this.proposal.id, jsonrpc: '2.0', error: { code, message: 'User rejected.' } });
  }
  settlement(change: Record<string, unknown> = {}, accounts = [`${CHAIN}:${IDENTITY}`]): string {
    const params = {
      relay: { protocol: 'irn' },
      controller: { publicKey: this.publicKey, metadata: { name: 'A wallet', description: '', url: '', icons: [] } },
      namespaces: { qubic: { accounts, methods: METHODS, events: [] } },
      expiry: Math.floor(Date.now() / 1000) + 3600,
    };
    return this.asks(7_000, 'wc_sessionSettle', { ...params, ...change });
  }
  asks(id: number, method: string, params: object = {}): string {
    return sealed(this.key, { id, jsonrpc: '2.0', method, params });
  }
  answers(id: number, told: object): string {
    return sealed(this.key, { id, jsonrpc: '2.0', ...told });
  }
  /** What the page said on the session's topic by that tag, the newest last. */
  said(tag: number): Record<string, unknown>[] {
    const mine = this.on.relay.published.filter((one) => one.topic === this.topic && one.tag === tag);
    return mine.map((one) => opened(this.key, one.message));
  }
  async hears(tag: number, count = 1): Promise<Record<string, unknown>> {
    await this.on.relay.until(() => this.said(tag).length >= count);
    const last = this.said(tag).at(-1);
    assert.ok(last);
    return last;
  }
  async accept(): Promise<void> {
    await this.on.relay.told(this.pairing, this.agreement());
    await this.on.relay.until(() => this.on.relay.subscribed.has(this.topic));
    await this.on.relay.told(this.topic, this.settlement());
  }
}

export const WISH = { chain: CHAIN, methods: METHODS };

export async function scanned(on = bench()): Promise<{ on: Bench; proposal: Proposal; peer: Peer }> {
  const proposal = await on.client.propose(WISH);
  return { on, proposal, peer: new Peer(on, proposal.uri) };
}
export async function connected(): Promise<{ on: Bench; peer: Peer; session: Session }> {
  const { on, proposal, peer } = await scanned();
  await peer.accept();
  return { on, peer, session: await proposal.session };
}
