// SPDX-License-Identifier: Apache-2.0
/**
 * MessagePack, written and read so that what is read can be written again byte for byte.
 *
 * Our own because digests are of encoded values, and JavaScript has one kind of number: to it 2.0 is 2, which MessagePack
 * and every digest tell apart. Here a floating-point number is a `Float`, also where it is whole; a plain number is an
 * integer. Lengths are minimal, as the other side's encoders make them. Ext types are written by `Raw` alone.
 */

import { concat, utf8, type Bytes } from './bytes';

/** A floating-point number, whole or not. */
export class Float {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}
/** Encoded already. */
export class Raw {
  readonly bytes: Uint8Array;
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }
}
export interface Fields {
  [name: string]: Value;
}
export type Value = null | boolean | number | bigint | string | Float | Raw | Uint8Array | Value[] | Fields;
/** What `decode` gives. */
export type Decoded = null | boolean | number | bigint | string | Float | Bytes | Decoded[] | { [name: string]: Decoded };

export class NotMessagePack extends Error {}

const DEPTH_MAX = 32;
const WORDS = [
  [0xff, 1, 0xcc],
  [0xffff, 2, 0xcd],
  [0xffffffff, 4, 0xce],
] as const;

export function encode(value: Value): Bytes {
  const parts: Uint8Array[] = [];
  put(value, parts);
  return concat(...parts);
}

function put(value: Value, parts: Uint8Array[]): void {
  if (value === null) parts.push(Uint8Array.of(0xc0));
  else if (typeof value === 'boolean') parts.push(Uint8Array.of(value ? 0xc3 : 0xc2));
  else if (typeof value === 'number' || typeof value === 'bigint') parts.push(integer(value));
  else if (typeof value === 'string') {
    const text = utf8(value);
    parts.push(text.length < 32 ? Uint8Array.of(0xa0 | text.length) : head(text.length, [0xd9, 0xda, 0xdb]), text);
  } else if (value instanceof Float) {
    const word = new DataView(new ArrayBuffer(9));
    word.setUint8(0, 0xcb);
    word.setFloat64(1, value.value);
    parts.push(new Uint8Array(word.buffer));
  } else if (value instanceof Raw) parts.push(value.bytes);
  else if (value instanceof Uint8Array) parts.push(head(value.length, [0xc4, 0xc5, 0xc6]), value);
  else if (Array.isArray(value)) {
    parts.push(value.length < 16 ? Uint8Array.of(0x90 | value.length) : head(value.length, [0, 0xdc, 0xdd]));
    for (const one of value) put(one, parts);
  } else {
    const pairs = Object.entries(value);
    parts.push(pairs.length < 16 ? Uint8Array.of(0x80 | pairs.length) : head(pairs.length, [0, 0xde, 0xdf]));
    for (const [name, one] of pairs) {
      put(name, parts);
      put(one, parts);
    }
  }
}

function word(code: number, size: number, value: number): Bytes {
  const made = new DataView(new ArrayBuffer(1 + size));
  made.setUint8(0, code);
  if (size === 1) made.setUint8(1, value);
  else if (size === 2) made.setUint16(1, value);
  else made.setUint32(1, value);
  return new Uint8Array(made.buffer);
}

/** `codes` for a length of one, two and four bytes; 0: there is no such form. */
function head(length: number, codes: readonly [number, number, number]): Bytes {
  const at = WORDS.findIndex(([most], index) => length <= most && codes[index]);
  const [, size] = WORDS[at] ?? [0, 4];
  return word(codes[at] ?? codes[2], size, length);
}

function integer(value: number | bigint): Bytes {
  if (typeof value === 'number' && !Number.isSafeInteger(value)) {
    throw new NotMessagePack(`${value} is no whole number that can be told exactly: make it a Float`);
  }
  if (Object.is(value, -0)) return Uint8Array.of(0);
  if (value >= 0 && value < 128) return Uint8Array.of(Number(value));
  if (value < 0 && value >= -32) return Uint8Array.of(256 + Number(value));
  if (value >= 0) {
    const fits = WORDS.find(([most]) => value <= most);
    if (fits) return word(fits[2], fits[1], Number(value));
    return long(0xcf, BigInt(value), 0n, 2n ** 64n - 1n);
  }
  if (value >= -128) return word(0xd0, 1, Number(value) & 0xff);
  if (value >= -32_768) return word(0xd1, 2, Number(value) & 0xffff);
  if (value >= -2_147_483_648) return word(0xd2, 4, Number(value) >>> 0);
  return long(0xd3, BigInt(value), -(2n ** 63n), -1n);
}

function long(code: number, value: bigint, low: bigint, high: bigint): Bytes {
  if (value < low || value > high) throw new NotMessagePack(`${value} has more than 64 bits`);
  const made = new DataView(new ArrayBuffer(9));
  made.setUint8(0, code);
  made.setBigUint64(1, BigInt.asUintN(64, value));
  return new Uint8Array(made.buffer);
}

/** One value from exactly `data`; nothing is set aside beyond what is there. Throws NotMessagePack. */
export function decode(data: Uint8Array): Decoded {
  const reader = new Reader(data);
  const value = reader.value(0);
  if (reader.left) throw new NotMessagePack(`${reader.left} bytes follow the value`);
  return value;
}

class Reader {
  readonly #data: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(data: Uint8Array) {
    this.#data = data;
    this.#view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  }

  get left(): number {
    return this.#data.length - this.#at;
  }

  value(depth: number): Decoded {
    if (depth > DEPTH_MAX) throw new NotMessagePack('nested too deep');
    const code = this.#view.getUint8(this.#skip(1));
    if (code < 0x80) return code;
    if (code < 0x90) return this.#map(code & 0x0f, depth);
    if (code < 0xa0) return this.#list(code & 0x0f, depth);
    if (code < 0xc0) return this.#text(code & 0x1f);
    if (code >= 0xe0) return code - 256;
    return this.#long(code, depth);
  }

  #long(code: number, depth: number): Decoded {
    switch (code) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.#bytes(this.#uint(1 << (code - 0xc4)));
      case 0xca:
        throw new NotMessagePack('a float of 32 bits is not sent here');
      case 0xcb:
        return new Float(this.#view.getFloat64(this.#skip(8)));
      case 0xcc:
      case 0xcd:
      case 0xce:
        return this.#uint(1 << (code - 0xcc));
      case 0xcf:
        return plain(this.#view.getBigUint64(this.#skip(8)));
      case 0xd0:
        return this.#view.getInt8(this.#skip(1));
      case 0xd1:
        return this.#view.getInt16(this.#skip(2));
      case 0xd2:
        return this.#view.getInt32(this.#skip(4));
      case 0xd3:
        return plain(this.#view.getBigInt64(this.#skip(8)));
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.#text(this.#uint(1 << (code - 0xd9)));
      case 0xdc:
      case 0xdd:
        return this.#list(this.#uint(2 << (code - 0xdc)), depth);
      case 0xde:
      case 0xdf:
        return this.#map(this.#uint(2 << (code - 0xde)), depth);
      default:
        throw new NotMessagePack(`no value begins with ${code.toString(16)}`);
    }
  }

  #skip(size: number): number {
    if (size > this.left) throw new NotMessagePack('it ends in the middle');
    this.#at += size;
    return this.#at - size;
  }

  #uint(size: number): number {
    const at = this.#skip(size);
    if (size === 1) return this.#view.getUint8(at);
    return size === 2 ? this.#view.getUint16(at) : this.#view.getUint32(at);
  }

  #bytes(size: number): Bytes {
    const at = this.#skip(size);
    return this.#data.slice(at, at + size) as Bytes;
  }

  #text(size: number): string {
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(this.#bytes(size));
    } catch {
      throw new NotMessagePack('a text is not UTF-8');
    }
  }

  #list(size: number, depth: number): Decoded[] {
    if (size > this.left) throw new NotMessagePack('it ends in the middle');
    return Array.from({ length: size }, () => this.value(depth + 1));
  }

  #map(size: number, depth: number): { [name: string]: Decoded } {
    if (2 * size > this.left) throw new NotMessagePack('it ends in the middle');
    const found: { [name: string]: Decoded } = Object.create(null) as { [name: string]: Decoded };
    for (let index = 0; index < size; index += 1) {
      const name = this.value(depth + 1);
      if (typeof name !== 'string' || name in found) throw new NotMessagePack('a map has names, each once');
      found[name] = this.value(depth + 1);
    }
    return found;
  }
}

function plain(value: bigint): number | bigint {
  const short = Number(value);
  return Number.isSafeInteger(short) ? short : value;
}
