// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ApiError } from '../src/lib/api/client';
import { Once } from '../src/lib/once';

type Rate = { rate: number };
const lost = new ApiError(0, 'unreachable', '', '', '');
const refused = new ApiError(422, 'invalid_input', '', '', '');
const broken = new ApiError(500, 'internal', '', '', '');

function market(): { post: (body: Rate, key: string) => Promise<string>; heard: [number, string][]; answers: (ApiError | string)[] } {
  const heard: [number, string][] = [];
  const answers: (ApiError | string)[] = [];
  const post = async (body: Rate, key: string): Promise<string> => {
    heard.push([body.rate, key]);
    const answer = answers.shift() ?? 'made';
    if (answer instanceof ApiError) throw answer;
    return answer;
  };
  return { post, heard, answers };
}

test('what may have been done is sent as it was, until it is answered', async () => {
  const [once, { post, heard, answers }] = [new Once<Rate>(), market()];
  answers.push(lost, broken, 'made', 'made');
  await assert.rejects(once.send({ minutes: 5 }, { rate: 1 }, post), lost);
  await assert.rejects(once.send({ minutes: 5 }, { rate: 2 }, post), broken);
  assert.equal(await once.send({ minutes: 5 }, { rate: 3 }, post), 'made');
  assert.deepEqual(new Set(heard.map(([rate, key]) => `${rate} ${key}`)).size, 1);
  await once.send({ minutes: 5 }, { rate: 4 }, post);
  assert.equal(heard[3]?.[0], 4);
  assert.notEqual(heard[3]?.[1], heard[2]?.[1]);
});

test('another form is another request, and what was refused is made anew', async () => {
  const [once, { post, heard, answers }] = [new Once<Rate>(), market()];
  answers.push(lost, refused);
  await assert.rejects(once.send({ minutes: 5 }, { rate: 1 }, post), lost);
  await assert.rejects(once.send({ minutes: 6 }, { rate: 1 }, post), refused);
  await once.send({ minutes: 6 }, { rate: 2 }, post);
  assert.deepEqual(heard.map(([rate]) => rate), [1, 1, 2]);
  assert.equal(new Set(heard.map(([, key]) => key)).size, 3);
});
