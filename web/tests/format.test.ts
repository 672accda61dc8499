// SPDX-License-Identifier: Apache-2.0
/** What was measured is told with its unit; what is said in words is not. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { moment, said, titled, withUnit } from '../src/lib/format';

const CASES: [string, string, string][] = [
  ['12.5', 'GiB', '12.5 GiB'],
  ['1,024', 'MiB', '1,024 MiB'],
  ['-0.2', 's', '-0.2 s'],
  ['12.0 up, 9.0 down', 'MB/s', '12.0 up, 9.0 down MB/s'],
  ['10 each way', 'MB/s', '10 each way MB/s'],
  ['right, in 3.2', 'ms', 'right, in 3.2 ms'],
  ['2 of 2 gateways, the nearest at 7', 'ms', '2 of 2 gateways, the nearest at 7 ms'],
  ['3 of 5', 'ms', '3 of 5'],
  ['within 30', 's', 'within 30 s'],
  ['under 90', '°C', 'under 90 °C'],
  ['3 of 5, matmul 88 GFLOP/s', 'ms', '3 of 5, matmul 88 GFLOP/s'],
  ['no answer from the store', 'MB/s', 'no answer from the store'],
  ['a result that its verifier accepts', 'ms', 'a result that its verifier accepts'],
  ['580.95', '', '580.95'],
];

for (const [text, unit, told] of CASES) test(told, () => assert.equal(withUnit(text, unit), told));

const SENTENCES: [string, string][] = [
  ['1999999 QU can be withdrawn: the balance is 1999999 QU.', '1,999,999 QU can be withdrawn: the balance is 1,999,999 QU.'],
  ['50,000 QU are held', '50,000 QU are held'],
  ['999 QU, at 123456.5 QU and 0.12345 QU', '999 QU, at 123456.5 QU and 0.12345 QU'],
  ['at least 95% are right, with 95 % confidence', 'at least 95 % are right, with 95 % confidence'],
  ['attempt 12345 of 2026, price<=40000QU/h', 'attempt 12345 of 2026, price<=40000QU/h'],
];

SENTENCES.forEach(([told, read], at) => {
  test(`${at}: a sentence has its numbers as the page writes them`, () => assert.equal(said(told), read));
});

test('the year is told where it is not this one', () => {
  const at = new Date(2026, 10, 6, 7, 5).getTime();
  assert.equal(moment(at, new Date(2026, 0, 1).getTime()), 'Nov 6, 07:05');
  assert.equal(moment(at, new Date(2027, 0, 1).getTime()), 'Nov 6, 2026, 07:05');
});

test('a processor is called one beside GPUs', () => {
  assert.equal(titled({ kind: 'cpu', model: 'EPYC' }), 'EPYC (CPU)');
  assert.equal(titled({ kind: 'cuda', model: 'H100' }), 'H100');
});
