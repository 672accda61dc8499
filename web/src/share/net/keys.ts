// SPDX-License-Identifier: Apache-2.0
/**
 * The tab's Ed25519 key, and the peer id that is made from it: base58 of the identity multihash of the key's protobuf,
 * so that the key can be read back from it (libp2p specs, peer-ids).
 */

import { base58, concat, unhex, type Bytes } from './bytes';

const ED25519 = { name: 'Ed25519' } as const;
const PREFIX = unhex('002408011220');

export interface Identity {
  readonly publicKey: Bytes;
  readonly peerId: string;
  sign(message: Uint8Array): Promise<Bytes>;
}

/** This browser cannot make or keep the key that signs. */
export class NoKey extends Error {}

export const peerIdOf = (publicKey: Uint8Array): string => base58(concat(PREFIX, publicKey));

export async function identityOf(pair: CryptoKeyPair): Promise<Identity> {
  const publicKey = new Uint8Array(await crypto.subtle.exportKey('raw', pair.publicKey));
  return {
    publicKey,
    peerId: peerIdOf(publicKey),
    sign: async (message) => new Uint8Array(await crypto.subtle.sign(ED25519, pair.privateKey, message as Bytes)),
  };
}

/** A key whose private half no script can read, this one included. Throws NoKey. */
export async function generate(): Promise<CryptoKeyPair> {
  if (globalThis.crypto?.subtle === undefined) {
    throw new NoKey('the page is not loaded over HTTPS or from this machine');
  }
  try {
    return (await crypto.subtle.generateKey(ED25519, false, ['sign', 'verify'])) as CryptoKeyPair;
  } catch (problem) {
    throw new NoKey(`this browser has no Ed25519: ${String(problem)}`);
  }
}

/** False, never an exception, on keys and signatures of any length. */
export async function verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): Promise<boolean> {
  try {
    const key = await crypto.subtle.importKey('raw', publicKey as Bytes, ED25519, false, ['verify']);
    return await crypto.subtle.verify(ED25519, key, signature as Bytes, message as Bytes);
  } catch {
    return false;
  }
}
