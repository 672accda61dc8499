// SPDX-License-Identifier: Apache-2.0
/** What was measured is told with its unit; what is said in words is not. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withUnit } from '../src/lib/format';

const CASES: [string, string, string][] = [
  ['12.5', 'GiB', '12.5 GiB'],
  ['1,024', 'MiB', '1,024 MiB'],
  ['-0.2', 's', '-0.2 s'],
  ['12.0 up, 9.0 down', 'MB/s', '12.0 up, 9.0 down MB/s'],
  ['10 each way', 'MB/s', '10 each way MB/s'],
  ['right, in 3.2', 'ms', 'right, in 3.2 ms'],
  ['within 30', 's', 'within 30 s'],
  ['under 90', '°C', 'under 90 °C'],
  ['3 of 5, matmul 88 GFLOP/s', 'ms', '3 of 5, matmul 88 GFLOP/s'],
  ['no answer from the store', 'MB/s', 'no answer from the store'],
  ['a result that its verifier accepts', 'ms', 'a result that its verifier accepts'],
  ['580.95', '', '580.95'],
];

for (const [text, unit, told] of CASES) test(told, () => assert.equal(withUnit(text, unit), told));
