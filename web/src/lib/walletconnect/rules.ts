// SPDX-License-Identifier: Apache-2.0
/** What is made of messages that anybody may have sent: pure, and without an exception for any of them. */

import { WalletConnectError, type Failure } from './errors';

export const REQUEST_S = 300;
const SESSION_S_MAX = 30 * 86_400;
const ACCOUNTS_MAX = 100;
const NAME_MAX = 80;
const IDENTITY = /^[A-Z]{60}$/;
const KEY = /^[0-9a-f]{64}$/;

/** Seconds that the relay keeps it, the tag that says what it is, and whether a person has to act. */
export interface Way {
  readonly ttl: number;
  readonly tag: number;
  readonly prompt?: boolean;
}
const DAY_S = 86_400;
/** specs.walletconnect.com: Sign and Pairing, "RPC Methods". */
export const WAYS = {
  propose: { ttl: REQUEST_S, tag: 1100, prompt: true },
  settled: { ttl: REQUEST_S, tag: 1103 },
  updated: { ttl: DAY_S, tag: 1105 },
  extended: { ttl: DAY_S, tag: 1107 },
  request: { ttl: REQUEST_S, tag: 1108, prompt: true },
  eventTaken: { ttl: REQUEST_S, tag: 1111 },
  delete: { ttl: DAY_S, tag: 1112 },
  deleted: { ttl: DAY_S, tag: 1113 },
  pong: { ttl: 30, tag: 1115 },
  pairingDelete: { ttl: DAY_S, tag: 1000 },
} as const satisfies Record<string, Way>;

export interface RpcError {
  readonly code: number;
  readonly message: string;
}
export type Payload =
  | { readonly kind: 'request'; readonly id: number; readonly method: string; readonly params: Readonly<Record<string, unknown>> }
  | { readonly kind: 'result'; readonly id: number; readonly result: unknown }
  | { readonly kind: 'error'; readonly id: number; readonly error: RpcError };

/** A wallet's account as it tells of it. */
export interface Account {
  readonly identity: string;
  readonly name: string;
}

/** What a wallet and this page have agreed on. */
export interface Session {
  readonly topic: string;
  /** Hexadecimal. Who has it can ask the wallet, and its owner still has to say yes there. */
  readonly key: string;
  readonly expiryS: number;
  readonly wallet: string;
  readonly chain: string;
  readonly methods: readonly string[];
  readonly accounts: readonly string[];
  /** Ids of the wallet's changes grow: an older one is a replay. */
  readonly lastId: number;
}

type Given = Readonly<Record<string, unknown>>;
const given = (value: unknown): Given => (typeof value === 'object' && value !== null ? (value as Given) : {});
const texts = (value: unknown): string[] =>
  Array.isArray(value) ? value.filter((one): one is string => typeof one === 'string') : [];
export const text = (value: unknown): string => (typeof value === 'string' ? value : '');

export function payloadOf(json: string): Payload | null {
  let told: Given;
  try {
    told = given(JSON.parse(json));
  } catch {
    return null;
  }
  const { id, method } = told;
  if (told['jsonrpc'] !== '2.0' || typeof id !== 'number' || !Number.isSafeInteger(id)) return null;
  if (typeof method === 'string') return { kind: 'request', id, method, params: given(told['params']) };
  if ('error' in told) {
    const { code, message } = given(told['error']);
    return { kind: 'error', id, error: { code: typeof code === 'number' ? code : 0, message: text(message) } };
  }
  return 'result' in told ? { kind: 'result', id, result: told['result'] } : null;
}

/** The responder's public key in the answer to a proposal; "": there is none. */
export function responderOf(result: unknown): string {
  const key = text(given(result)['responderPublicKey']);
  return KEY.test(key) ? key : '';
}

/** Identities of the chain that a wallet opens, each once; the namespace of a chain may stand under its full name. */
export function accountsOf(namespaces: unknown, chain: string): string[] {
  const found = spaces(namespaces, chain).flatMap((space) => texts(space['accounts']));
  const mine = found.filter((one) => one.startsWith(`${chain}:`)).map((one) => one.slice(chain.length + 1));
  return [...new Set(mine.filter((one) => IDENTITY.test(one)))].slice(0, ACCOUNTS_MAX);
}

function spaces(namespaces: unknown, chain: string): Given[] {
  const all = given(namespaces);
  return [all[chain.split(':')[0] ?? ''], all[chain]].map(given);
}

export interface Settlement {
  readonly topic: string;
  readonly key: string;
  readonly responder: string;
  readonly chain: string;
  readonly methods: readonly string[];
}

/** A session, or why there is none: an error that the wallet is told. */
export function settled(params: Given, asked: Settlement, nowS: number): Session | RpcError {
  const controller = given(params['controller']);
  const { expiry } = params;
  if (controller['publicKey'] !== asked.responder) return { code: 1005, message: 'Another key than the proposal was answered with' };
  if (typeof expiry !== 'number' || !Number.isFinite(expiry) || expiry <= nowS) return { code: 1005, message: 'Expiry is over' };
  const accounts = accountsOf(params['namespaces'], asked.chain);
  if (!accounts.length) return { code: 5103, message: `No account of ${asked.chain}` };
  const methods = spaces(params['namespaces'], asked.chain).flatMap((space) => texts(space['methods']));
  const missing = asked.methods.find((one) => !methods.includes(one));
  if (missing) return { code: 5002, message: `${missing} must be approved` };
  return {
    topic: asked.topic,
    key: asked.key,
    expiryS: Math.min(Math.floor(expiry), nowS + SESSION_S_MAX),
    wallet: shown(given(controller['metadata'])['name']),
    chain: asked.chain,
    methods: [...asked.methods],
    accounts,
    lastId: 0,
  };
}

/** The session with other accounts; null: it names none, or is older than what is known. */
export function updated(session: Session, id: number, params: Given): Session | null {
  const accounts = accountsOf(params['namespaces'], session.chain);
  return id > session.lastId && accounts.length ? { ...session, accounts, lastId: id } : null;
}

/** The session with a later end; null: it is none, too far off, or older than what is known. */
export function extended(session: Session, id: number, params: Given, nowS: number): Session | null {
  const { expiry } = params;
  if (id <= session.lastId || typeof expiry !== 'number' || !Number.isFinite(expiry)) return null;
  return expiry > session.expiryS && expiry <= nowS + SESSION_S_MAX
    ? { ...session, expiryS: Math.floor(expiry), lastId: id }
    : null;
}

/** What `qubic_requestAccounts` answers, without what is no account. */
export function told(result: unknown): Account[] {
  const all = (Array.isArray(result) ? result : []).map(given);
  const good = all.filter((one) => IDENTITY.test(text(one['address'])));
  return good.slice(0, ACCOUNTS_MAX).map((one) => ({ identity: text(one['address']), name: shown(one['name']) }));
}

/** Names are others' words: one line of them, and not a long one. */
export const shown = (value: unknown): string => text(value).replace(/[\p{C}\s]+/gu, ' ').trim().slice(0, NAME_MAX);

/** Codes of the protocol (CAIP-25, EIP-1193) and of Qubic's wallets. */
export function failureOf(error: RpcError): WalletConnectError {
  const { code, message } = error;
  let failure: Failure = 'wallet';
  if (code === 4001 || (code >= 5000 && code <= 5003)) failure = 'rejected';
  else if (code === -32001) failure = 'busy';
  else if (code === 8000) failure = 'unanswered';
  else if (code === 6000 || code === 7001) failure = 'ended';
  return new WalletConnectError(failure, shown(message));
}

/** As Qubic's wallets and the clients in use write it: `methods`, which the specification lists, is left out by them all. */
export const pairingUri = (topic: string, key: string, expiryS: number): string =>
  `wc:${topic}@2?expiryTimestamp=${expiryS}&relay-protocol=irn&symKey=${key}`;

/** What was kept by this browser, if it is whole and not over. */
export function keptSession(value: unknown, nowS: number): Session | null {
  const one = given(value);
  const { topic, key, expiryS, wallet, chain, lastId } = one;
  const accounts = texts(one['accounts']).filter((name) => IDENTITY.test(name));
  if (!KEY.test(text(topic)) || !KEY.test(text(key)) || !text(chain) || !accounts.length) return null;
  if (typeof expiryS !== 'number' || expiryS <= nowS || typeof lastId !== 'number') return null;
  const methods = texts(one['methods']);
  return { topic: text(topic), key: text(key), expiryS, wallet: shown(wallet), chain: text(chain), methods, accounts, lastId };
}
