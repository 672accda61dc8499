// SPDX-License-Identifier: Apache-2.0
/** The card's look at itself, in the worker: what it is, what it holds, whether it computes rightly, and how fast. */

import type { Card } from './card';
import * as checks from './checks';
import { failureOf, type Engine } from './engine';
import { HOSTS } from './kernels';
import { measured } from './measuring';
import type { Check, KernelRate } from './port';
import { outside, references } from './references';

const BLOCK_BYTES = 128 * 1024 * 1024;
/** More is not tried: a tab is not the card's only user. */
const MEMORY_BYTES_MAX = 4 * 1024 ** 3;
/** A processor that poses as a card has no memory of its own to offer. */
const FALLBACK_BYTES_MAX = 512 * 1024 ** 2;
const never = new AbortController().signal;

export async function tested(engine: Engine, report: (check: Check) => void): Promise<Check[]> {
  const found: Check[] = [];
  const tell = (check: Check): void => {
    found.push(check);
    report(check);
  };
  const info = await engine.info();
  tell(checks.webgpu(info));
  tell(checks.limits(info));
  engine.memoryBytes = await engine.inTurn(() => engine.onCard(room));
  tell(checks.memory((await engine.info()).memoryBytes));
  for (const { name } of HOSTS) tell(await judged(engine, name));
  let [rates, problem]: [KernelRate[], string] = [[], ''];
  try {
    rates = await measured(engine, never);
  } catch (why) {
    problem = failureOf(why).message;
  }
  tell(checks.rates(rates, HOSTS.map((host) => host.name), problem));
  return found;
}

/** How much can be had at once and written to; all of it is given back. */
async function room(card: Card): Promise<number> {
  const most = card.info.fallback ? FALLBACK_BYTES_MAX : MEMORY_BYTES_MAX;
  const blocks: GPUBuffer[] = [];
  try {
    while (blocks.length * BLOCK_BYTES < most && (await fits(card, blocks)));
    return blocks.length * BLOCK_BYTES;
  } finally {
    for (const block of blocks) block.destroy();
  }
}

async function fits(card: Card, blocks: GPUBuffer[]): Promise<boolean> {
  card.device.pushErrorScope('out-of-memory');
  const block = card.buffer(BLOCK_BYTES);
  if (await card.orGone(card.device.popErrorScope())) {
    block.destroy();
    return false;
  }
  // Promised memory is not there before something is written to it.
  const encoder = card.device.createCommandEncoder();
  encoder.clearBuffer(block);
  card.device.queue.submit([encoder.finish()]);
  await card.done();
  blocks.push(block);
  return true;
}

async function judged(engine: Engine, name: string): Promise<Check> {
  let total = 0;
  try {
    for (const one of references.filter((reference) => reference.kernel === name)) {
      const inputs = Object.fromEntries(Object.entries(one.inputs).map(([key, array]) => [key, { key: `reference ${key}`, array }]));
      const { outputs, ms } = await engine.run(name, one.params, inputs, { start: 0, stop: one.units }, never);
      total += ms;
      for (const [key, { low, high }] of Object.entries(one.outputs)) {
        const wrong = outside(outputs[key], low, high);
        if (wrong) return checks.kernel(name, total, `${wrong} of ${low.data.byteLength / 4} elements of ${key} are wrong`);
      }
    }
  } catch (problem) {
    return checks.kernel(name, total, failureOf(problem).message);
  }
  return checks.kernel(name, total, '');
}
