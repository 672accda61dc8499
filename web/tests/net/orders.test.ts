// SPDX-License-Identifier: Apache-2.0
/** What the page's key signs is the Python code's, byte for byte (`scripts/tab_vectors.py`). */

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Kernel } from '../../src/lib/jobs';
import * as say from '../../src/lib/orders/statements';
import { hex, unhex } from '../../src/share/net/bytes';
import { readEvidence, seal } from '../../src/share/net/envelope';
import { identityOf, type Identity } from '../../src/share/net/keys';
import { encode, Float, type Fields } from '../../src/share/net/msgpack';
import vectors from './vectors.json';

const ACCOUNT = '00000001-0000-4000-8000-000000000001';
/** Of a private key in PKCS #8, before its 32 bytes (RFC 8410). */
const PKCS8 = '302e020100300506032b657004220420';
const meta = { dtype: 'float32', shape: [300, 4] };
const inputs = Object.fromEntries(['a', 'b'].map((name) => [name, { digest: hex(new Uint8Array(32).fill(name.charCodeAt(0))), size_bytes: 70_000, meta }]));

type Vector = (typeof vectors.orders)[number];

async function tab(): Promise<Identity> {
  const { seed, public: known } = vectors.keys.tab;
  const usage = { name: 'Ed25519' };
  const privateKey = await crypto.subtle.importKey('pkcs8', unhex(PKCS8 + seed), usage, false, ['sign']);
  return identityOf({ privateKey, publicKey: await crypto.subtle.importKey('raw', unhex(known), usage, true, ['verify']) });
}

function mine({ what, of }: Vector): Fields | Promise<Fields> {
  if (what === 'rent') return say.rentOrder('key', of as unknown as say.RentTerms);
  if (what === 'request') return say.keyRequest(ACCOUNT, 'Firefox on Linux', vectors.now_ms);
  if (what === 'revocation') return say.keyRevocation(ACCOUNT, unhex(vectors.keys.other.public));
  if (what === 'wallet') return say.walletApproval(ACCOUNT, 'B'.repeat(60));
  const { kernel, said } = of as unknown as { kernel: Kernel; said: { [name: string]: unknown } };
  const terms = { kernel: kernel.name, params: said, inputs, cap_qu: 5_000_000_000 };
  return say.jobOrder(`key of ${kernel.name}`, terms, kernel);
}

describe('orders', () => {
  assert.deepEqual(vectors.orders.map((one) => one.what), ['job', 'job', 'job', 'job', 'rent', 'request', 'revocation', 'wallet']);
  for (const [at, one] of vectors.orders.entries()) {
    test(`number ${at}, ${one.what}`, async () => {
      const message = await mine(one);
      assert.equal(hex(encode(message)), one.body);
      const audience = unhex(vectors.keys.coordinator.public);
      const header = { network: 'devnet', audience, incarnation: 0, counter: 1, expiresMs: vectors.now_ms + 60_000 };
      assert.equal(hex(await seal(message, await tab(), header)), one.envelope);
      const opened = await readEvidence(unhex(one.envelope), 'devnet', unhex(vectors.keys.tab.public));
      assert.equal(opened.header.type, message['t']);
    });
  }
});

describe('parameters', () => {
  const kernel = {
    name: 'x',
    params: [
      { name: 'real', kind: 'float', default: 2 },
      { name: 'whole', kind: 'int', default: 3 },
      { name: 'text', kind: 'str', default: 'a' },
    ],
  } as unknown as Kernel;

  test('are in their exact kind, each with its default', () => {
    assert.deepEqual(say.normalParams(kernel, {}), { real: new Float(2), whole: 3, text: 'a' });
    assert.deepEqual(say.normalParams(kernel, { real: 0.5, whole: 2 ** 53, text: 'b', more: 1 }), { real: new Float(0.5), whole: 2n ** 53n, text: 'b' });
  });

  test('-0 is the 0 that JSON makes of it', () => {
    const { real } = say.normalParams(kernel, { real: -0 });
    assert.ok(real instanceof Float && Object.is(real.value, 0));
  });

  test('an input that is no array has no order', async () => {
    const terms = { kernel: 'x', params: {}, inputs: { a: { digest: '00'.repeat(32), size_bytes: 1, meta: null } }, cap_qu: 1 };
    await assert.rejects(say.jobOrder('key', terms, kernel), RangeError);
  });
});
