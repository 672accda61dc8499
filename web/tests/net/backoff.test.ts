// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backoffMs } from '../../src/share/net/backoff';

for (const [chance, waits] of [
  [0, [50, 100, 200, 400, 500, 500]],
  [1, [100, 200, 400, 800, 1_000, 1_000]],
] as const) {
  test(`a wait doubles up to the most, by chance ${chance}`, (context) => {
    context.mock.method(Math, 'random', () => chance);
    assert.deepEqual([0, 1, 2, 3, 4, 2_000].map((failures) => backoffMs(failures, 100, 1_000)), waits);
  });
}
