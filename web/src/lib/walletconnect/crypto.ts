// SPDX-License-Identifier: Apache-2.0
/**
 * What WalletConnect v2 seals with and signs with (specs.walletconnect.com, "Crypto"): envelopes of type 0, keys agreed
 * on by X25519 and HKDF-SHA256, topics, and the token by which a client shows the relay who it is. ChaCha20-Poly1305 is
 * of @noble/ciphers, since WebCrypto has none; everything else is the browser's own.
 */

import { chacha20poly1305 } from '@noble/ciphers/chacha.js';

import { base58, base64, base64url, concat, hex, sha256, unbase64, unhex, utf8, type Bytes } from '../../share/net/bytes';
import { WalletConnectError } from './errors';

const TYPE_0 = 0;
const IV = 12;
const KEY = 32;
const TAG = 16;
const ED25519 = { name: 'Ed25519' } as const;
const X25519 = { name: 'X25519' } as const;
/** In front of an Ed25519 key in a did:key (multicodec 0xed as a varint). */
const MULTICODEC = unhex('ed01');
const TOKEN_S = 86_400;

export const random = (size: number): Bytes => crypto.getRandomValues(new Uint8Array(size));

/** Base64 of an envelope that who has the key can open. */
export function seal(key: Uint8Array, text: string, iv = random(IV)): string {
  return base64(concat(Uint8Array.of(TYPE_0), iv, chacha20poly1305(key, iv).encrypt(utf8(text))));
}

/** null: it was not sealed with this key, or is no envelope of type 0 at all. Never an exception. */
export function open(key: Uint8Array, message: string): string | null {
  try {
    const bytes = unbase64(message);
    if (bytes[0] !== TYPE_0 || bytes.length < 1 + IV + TAG) return null;
    const text = chacha20poly1305(key, bytes.subarray(1, 1 + IV)).decrypt(bytes.subarray(1 + IV));
    return new TextDecoder('utf-8', { fatal: true }).decode(text);
  } catch {
    return null;
  }
}

export const topicOf = async (key: Uint8Array): Promise<string> => hex(await sha256(key));

/** Older browsers have not these curves, and a page that is no secure context has no WebCrypto at all. */
async function made(curve: typeof ED25519 | typeof X25519, readable: boolean, uses: KeyUsage[]): Promise<CryptoKeyPair> {
  try {
    return (await crypto.subtle.generateKey(curve, readable, uses)) as CryptoKeyPair;
  } catch {
    throw new WalletConnectError('unsupported');
  }
}

/** A pair for one agreement; its private half cannot be read, and is gone with the page. Throws WalletConnectError. */
export const agreementPair = (): Promise<CryptoKeyPair> => made(X25519, false, ['deriveBits']);

export const publicHalf = async (pair: CryptoKeyPair): Promise<string> =>
  hex(new Uint8Array(await crypto.subtle.exportKey('raw', pair.publicKey)));

/** The key that both sides come to. Throws for what is no public key, or one of small order. */
export async function agree(privateKey: CryptoKey, peerPublicHex: string): Promise<Bytes> {
  const peer = await crypto.subtle.importKey('raw', unhex(peerPublicHex), X25519, false, []);
  const shared = await crypto.subtle.deriveBits({ name: 'X25519', public: peer }, privateKey, 8 * KEY);
  const base = await crypto.subtle.importKey('raw', shared, 'HKDF', false, ['deriveBits']);
  const hkdf = { name: 'HKDF', hash: 'SHA-256', salt: new Uint8Array(0), info: new Uint8Array(0) };
  return new Uint8Array(await crypto.subtle.deriveBits(hkdf, base, 8 * KEY));
}

/** The key by which the relay knows this browser and keeps its messages; it opens none of them. */
export interface ClientKey {
  readonly x: string;
  readonly d: string;
}

/** Throws WalletConnectError. */
export async function clientKey(): Promise<ClientKey> {
  const pair = await made(ED25519, true, ['sign', 'verify']);
  const { x = '', d = '' } = await crypto.subtle.exportKey('jwk', pair.privateKey);
  return { x, d };
}

export interface Claims {
  act?: string;
  iss: string;
  sub: string;
  aud: string;
  iat: number;
  exp: number;
}

export function didOf(key: ClientKey): string {
  const publicKey = unbase64(key.x.replaceAll('-', '+').replaceAll('_', '/'));
  return `did:key:z${base58(concat(MULTICODEC, publicKey))}`;
}

export async function signedToken(key: ClientKey, claims: Claims): Promise<string> {
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: key.x, d: key.d };
  const signer = await crypto.subtle.importKey('jwk', jwk, ED25519, false, ['sign']);
  const parts = [{ alg: 'EdDSA', typ: 'JWT' }, claims].map((part) => base64url(utf8(JSON.stringify(part))));
  const signature = await crypto.subtle.sign(ED25519, signer, utf8(parts.join('.')));
  return [...parts, base64url(new Uint8Array(signature))].join('.');
}

/** For one connection: the relay refuses one whose audience is not its own address. */
export async function relayToken(key: ClientKey, relay: string, nowMs: number): Promise<string> {
  const iat = Math.floor(nowMs / 1000);
  const sub = hex(random(KEY));
  return signedToken(key, { act: 'client_auth', iss: didOf(key), sub, aud: relay, iat, exp: iat + TOKEN_S });
}
