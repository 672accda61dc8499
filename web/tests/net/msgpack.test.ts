// SPDX-License-Identifier: Apache-2.0
/** MessagePack: what is read can be written again, and what is broken is refused before memory is set aside. */

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { hex, unhex } from '../../src/share/net/bytes';
import { decode, encode, Float, NotMessagePack, type Value } from '../../src/share/net/msgpack';

const CASES: [string, Value, string][] = [
  ['nothing', null, 'c0'],
  ['a whole float', new Float(2), 'cb4000000000000000'],
  ['a whole number', 2, '02'],
  ['minus nought as a number', -0, '00'],
  ['minus nought as a float', new Float(-0), 'cb8000000000000000'],
  ['one byte more than fits', 128, 'cc80'],
  ['minus 33', -33, 'd0df'],
  ['2^32', 2 ** 32, 'cf0000000100000000'],
  ['more than a double holds', 2n ** 63n, 'cf8000000000000000'],
  ['less than a double holds', -(2n ** 63n), 'd38000000000000000'],
  ['text', 'é', 'a2c3a9'],
  ['bytes', Uint8Array.of(1, 2), 'c4020102'],
  ['a list', [1, [true]], '920191c3'],
  ['a map', { b: 1, a: false }, '82a16201a161c2'],
];

describe('written and read', () => {
  for (const [what, value, wanted] of CASES) {
    test(what, () => {
      assert.equal(hex(encode(value)), wanted);
      assert.equal(hex(encode(decode(unhex(wanted)) as Value)), wanted);
    });
  }
});

const BROKEN: [string, string][] = [
  ['nothing', ''],
  ['a list of four thousand million', 'ddffffffff'],
  ['a map of four thousand million', 'dfffffffff'],
  ['bytes that are not there', 'c6ffffffff00'],
  ['text that is not there', 'dbffffffff'],
  ['more after it', '0101'],
  ['a name twice', '82a16101a16102'],
  ['a name that is a number', '810101'],
  ['text that is not UTF-8', 'a1ff'],
  ['an ext type', 'd40100'],
  ['a short float', 'ca00000000'],
  ['the byte that is never used', 'c1'],
  ['nested for ever', '91'.repeat(64) + '00'],
];

describe('refused', () => {
  for (const [what, bytes] of BROKEN) {
    test(what, () => assert.throws(() => decode(unhex(bytes)), NotMessagePack));
  }
  test('a fraction that is no Float', () => assert.throws(() => encode(0.5), NotMessagePack));
  test('a number that JavaScript has rounded', () => assert.throws(() => encode(2 ** 53), NotMessagePack));
  test('more than 64 bits', () => assert.throws(() => encode(2n ** 64n), NotMessagePack));
});
