// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ApiError, get, onSignedOut, setCsrf } from '../src/lib/api/client';

test('a late answer to whoever was here before signs nobody out who is here now', async (context) => {
  const waiting: ((answer: Response) => void)[] = [];
  context.mock.method(globalThis, 'fetch', () => new Promise<Response>((answer) => waiting.push(answer)));
  let out = 0;
  onSignedOut(() => (out += 1));
  const refused = (asked: Promise<unknown>): Promise<void> => {
    waiting.shift()?.(Response.json({}, { status: 401 }));
    return assert.rejects(asked, (problem) => problem instanceof ApiError && problem.status === 401);
  };
  setCsrf('of one');
  const early = get('/jobs');
  setCsrf('');
  setCsrf('of another');
  await refused(early);
  assert.equal(out, 0);
  await refused(get('/jobs'));
  assert.equal(out, 1);
});
