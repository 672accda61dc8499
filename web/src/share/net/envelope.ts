// SPDX-License-Identifier: Apache-2.0
/**
 * The signed envelope around every statement (trust P1, P2), as `qubix_protocol.envelope` makes and reads it:
 * MessagePack `[signed, signature]`, where `signed` is `[version, network, type, sender, audience, incarnation, counter,
 * expires_ms, body]`, signed byte for byte as sent.
 */

import { concat, equal, utf8, type Bytes } from './bytes';
import { verify, type Identity } from './keys';
import { decode, encode, type Decoded, type Fields } from './msgpack';

export const VERSION = 1;
export const ANYONE = new Uint8Array(32);
export const FRAME_BYTES_MAX = 256 * 1024;
const LIFE_MS_MAX = 120_000;
/** Nothing follows what carries it. */
const COUNTER_LAST = Number.MAX_SAFE_INTEGER;
const CONTEXT = utf8('qubix/envelope/1\0');

export interface Header {
  network: string;
  type: string;
  sender: Bytes;
  audience: Bytes;
  incarnation: number;
  counter: number;
  expiresMs: number;
}
export interface Opened {
  header: Header;
  body: { [name: string]: Decoded };
  raw: Uint8Array;
}

/** What is not to be believed, by the code that the other side counts it under. */
export class Refusal extends Error {
  readonly code: string;
  constructor(code: string, detail: string) {
    super(detail);
    this.code = code;
  }
}

/** `message` begins with its type as `t`. */
export async function seal(message: Fields, key: Identity, header: Omit<Header, 'type' | 'sender'>): Promise<Bytes> {
  const { network, audience, incarnation, counter, expiresMs } = header;
  const body = encode(message);
  const type = String(message['t']);
  const signed = encode([VERSION, network, type, key.publicKey, audience, incarnation, counter, expiresMs, body]);
  return encode([signed, await key.sign(concat(CONTEXT, signed))]);
}

/** Structure, version, network, sender and signature; expiry and audience are the caller's. Throws Refusal. */
export async function readEvidence(raw: Uint8Array, network: string, sender: Uint8Array): Promise<Opened> {
  const { header, signed, signature, body } = taken(raw);
  if (header.network !== network) throw new Refusal('wrong_network', `meant for network ${header.network}`);
  if (!equal(header.sender, sender)) throw new Refusal('bad_signature', 'signed by another key than expected');
  if (!(await verify(sender, concat(CONTEXT, signed), signature))) {
    throw new Refusal('bad_signature', 'the signature does not match');
  }
  const found = unpacked(body);
  if (!isFields(found) || found['t'] !== header.type) throw malformed('the header names another type than the body');
  return { header, body: found, raw };
}

/** An envelope for `audience` alone that is good now. Throws Refusal. */
export async function open(
  raw: Uint8Array,
  network: string,
  sender: Uint8Array,
  audience: Uint8Array,
  nowMs: number,
): Promise<Opened> {
  const opened = await readEvidence(raw, network, sender);
  if (!equal(opened.header.audience, audience)) throw new Refusal('wrong_audience', 'meant for somebody else');
  const { expiresMs } = opened.header;
  if (expiresMs < nowMs || expiresMs > nowMs + LIFE_MS_MAX) throw new Refusal('expired', 'past, or too far ahead');
  return opened;
}

/** Takes each (incarnation, counter) once, in rising order. */
export class ReplayGuard {
  readonly #incarnation: number;
  #last = -1;

  constructor(incarnation: number) {
    this.#incarnation = incarnation;
  }

  /** Throws Refusal. */
  check({ incarnation, counter }: Header): void {
    if (incarnation !== this.#incarnation) throw new Refusal('replayed', `session ${incarnation} is not this one`);
    if (counter <= this.#last) throw new Refusal('replayed', `statement ${counter} was used already`);
    this.#last = counter;
  }
}

/** One series of statements of one session. Calls take turns, so that counters rise in the order of the calls. */
export class Sealer {
  #counter = 0;
  readonly #key: Identity;
  readonly #fixed: Pick<Header, 'network' | 'audience' | 'incarnation'>;
  readonly #nowMs: () => number;
  readonly #lifeMs: number;

  constructor(
    key: Identity,
    fixed: Pick<Header, 'network' | 'audience' | 'incarnation'>,
    nowMs: () => number,
    lifeMs = 60_000,
  ) {
    this.#key = key;
    this.#fixed = fixed;
    this.#nowMs = nowMs;
    this.#lifeMs = lifeMs;
  }

  seal(message: Fields): Promise<Bytes> {
    this.#counter += 1;
    return this.#sealed(message, this.#counter);
  }

  /** Good after whatever else is said, and only once: nothing after it is believed. */
  last(message: Fields): Promise<Bytes> {
    return this.#sealed(message, COUNTER_LAST);
  }

  #sealed(message: Fields, counter: number): Promise<Bytes> {
    return seal(message, this.#key, { ...this.#fixed, counter, expiresMs: this.#nowMs() + this.#lifeMs });
  }
}

const malformed = (detail: string): Refusal => new Refusal('malformed', detail);
const isFields = (value: Decoded): value is { [name: string]: Decoded } =>
  typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === null;

function unpacked(data: Uint8Array): Decoded {
  if (data.length > FRAME_BYTES_MAX) throw new Refusal('too_large', `${data.length} bytes`);
  try {
    return decode(data);
  } catch (problem) {
    throw malformed(String(problem));
  }
}

function taken(raw: Uint8Array): { header: Header; signed: Bytes; signature: Bytes; body: Bytes } {
  const wire = unpacked(raw);
  if (!Array.isArray(wire) || wire.length !== 2) throw malformed('no envelope');
  const [signed, signature] = wire;
  if (!(signed instanceof Uint8Array) || !(signature instanceof Uint8Array)) throw malformed('no envelope');
  const parts = unpacked(signed);
  if (!Array.isArray(parts) || parts.length !== 9) throw malformed('no header');
  const [version, network, type, sender, audience, incarnation, counter, expiresMs, body] = parts;
  if (version !== VERSION) throw new Refusal('wrong_version', `protocol version ${String(version)}`);
  if (
    typeof network !== 'string' ||
    typeof type !== 'string' ||
    !(sender instanceof Uint8Array) ||
    !(audience instanceof Uint8Array) ||
    !isCount(incarnation) ||
    !isCount(counter) ||
    !isCount(expiresMs) ||
    !(body instanceof Uint8Array)
  ) {
    throw malformed('a field of the header has another type');
  }
  return { header: { network, type, sender, audience, incarnation, counter, expiresMs }, signed, signature, body };
}

const isCount = (value: Decoded | undefined): value is number => typeof value === 'number' && value >= 0;
