// SPDX-License-Identifier: Apache-2.0
/** Published vectors, byte for byte. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agree, didOf, open, relayToken, seal, signedToken, topicOf } from '../../src/lib/walletconnect/crypto';
import { base64url, hex, unbase64, unhex } from '../../src/share/net/bytes';
import { A, B, CLIENT, HASHED_KEY, IV, MESSAGE, SHARED_KEY, SYM_KEY, TYPE_0, TYPE_1 } from './vectors';

const privateKey = (raw: string): Promise<CryptoKey> => {
  const pkcs8 = unhex(`302e020100300506032b656e04220420${raw}`);
  return crypto.subtle.importKey('pkcs8', pkcs8, { name: 'X25519' }, false, ['deriveBits']);
};
const clientKey = { d: base64url(unhex(CLIENT.seed)), x: base64url(unhex(CLIENT.publicKey)) };

test('both sides come to the published key', async () => {
  assert.equal(hex(await agree(await privateKey(A.privateKey), B.publicKey)), SYM_KEY);
  assert.equal(hex(await agree(await privateKey(B.privateKey), A.publicKey)), SYM_KEY);
});

test('a public key of small order, or that is none, is refused', async () => {
  const key = await privateKey(A.privateKey);
  for (const bad of ['00'.repeat(32), `01${'00'.repeat(31)}`, 'ab'.repeat(31), '']) await assert.rejects(agree(key, bad));
});

test('a topic is the hash of its key', async () => {
  assert.equal(await topicOf(unhex(SHARED_KEY)), HASHED_KEY);
});

test('an envelope is the published one, and opens', () => {
  assert.equal(seal(unhex(SYM_KEY), MESSAGE, unhex(IV)), TYPE_0);
  assert.equal(open(unhex(SYM_KEY), TYPE_0), MESSAGE);
});

test('what is changed anywhere, of another key, of another type or cut off does not open', () => {
  const key = unhex(SYM_KEY);
  const bytes = unbase64(TYPE_0);
  for (let at = 0; at < bytes.length; at += 1) {
    const changed = Uint8Array.from(bytes, (byte, index) => (index === at ? byte ^ 1 : byte));
    assert.equal(open(key, btoa(String.fromCharCode(...changed))), null, `byte ${at}`);
  }
  for (let size = 0; size < bytes.length; size += 1) {
    assert.equal(open(key, btoa(String.fromCharCode(...bytes.subarray(0, size)))), null, `${size} bytes`);
  }
  for (const bad of [TYPE_1, '', '*', 'AA==']) assert.equal(open(key, bad), null);
  assert.equal(open(unhex(SHARED_KEY), TYPE_0), null);
});

test('no two envelopes of a text are alike', () => {
  const made = new Set(Array.from({ length: 50 }, () => seal(unhex(SYM_KEY), MESSAGE)));
  assert.equal(made.size, 50);
});

test('a token is the published one', async () => {
  const { did: iss, sub, aud, iat, exp } = CLIENT;
  assert.equal(didOf(clientKey), iss);
  assert.equal(await signedToken(clientKey, { iss, sub, aud, iat, exp }), CLIENT.jwt);
});

test('a token for the relay names it, its client and what it is for, and each is another one', async () => {
  const [one = '', other] = await Promise.all([1, 2].map(() => relayToken(clientKey, CLIENT.aud, CLIENT.iat * 1000)));
  assert.notEqual(one, other);
  const claims = JSON.parse(Buffer.from(one.split('.')[1] ?? '', 'base64url').toString()) as Record<string, unknown>;
  assert.match(String(claims['sub']), /^[0-9a-f]{64}$/);
  assert.deepEqual(
    { ...claims, sub: '' },
    { act: 'client_auth', iss: CLIENT.did, sub: '', aud: CLIENT.aud, iat: CLIENT.iat, exp: CLIENT.exp },
  );
});
