// SPDX-License-Identifier: Apache-2.0
/** The module worker: owns the card, so that the page never waits for it. */

import { Engine, failureOf } from './engine';
import type { Input } from './kernels/host';
import { measured } from './measuring';
import type { Answer, Ask, FromWorker, Sent, ToWorker } from './messages';
import { GpuError, type NpyArray } from './port';
import { tested } from './selftest';

const engine = new Engine();
const arrays = new Map<string, NpyArray>();
const asked = new Map<number, AbortController>();
const TOLD_MS = 1_000;

const say = (message: FromWorker, moved: Transferable[] = []): void => postMessage(message, { transfer: moved });

onmessage = (event: MessageEvent<ToWorker>): void => {
  const message = event.data;
  if ('ask' in message) void answer(message.id, message.ask);
  else if ('abort' in message) asked.get(message.abort)?.abort();
  else if ('share' in message) engine.pace.share = message.share;
  else if ('hold' in message) engine.pace.hold(message.hold);
  else for (const key of message.drop) arrays.delete(key);
};

async function answer(id: number, ask: Ask): Promise<void> {
  const control = new AbortController();
  asked.set(id, control);
  try {
    const done = await carriedOut(id, ask, control.signal);
    say({ id, done }, 'outputs' in done ? Object.values(done.outputs).map((one) => one.data) : []);
  } catch (problem) {
    const { code, message, remedy } = failureOf(problem);
    say({ id, failed: { code, message, remedy } });
  }
  asked.delete(id);
}

function carriedOut(id: number, ask: Ask, signal: AbortSignal): Promise<Answer> {
  switch (ask.do) {
    case 'info':
      return engine.info();
    case 'run':
      return engine.run(ask.kernel, ask.params, taken(ask.inputs), ask.units, signal, (fraction) => say({ id, fraction }));
    case 'selfTest':
      return tested(engine, (check) => say({ id, check }), signal);
    case 'rates':
      return measured(engine, signal);
  }
}

function taken(sent: Record<string, Sent>): Record<string, Input> {
  const found: Record<string, Input> = {};
  for (const [name, { key, array }] of Object.entries(sent)) {
    if (array) arrays.set(key, array);
    const kept = arrays.get(key);
    if (!kept) throw new GpuError('internal', `the input ${name} is not here any more`);
    found[name] = { key, array: kept };
  }
  return found;
}

let before = 0;
setInterval(() => {
  const utilisation = engine.pace.utilisation();
  if (utilisation !== before) say({ utilisation });
  before = utilisation;
}, TOLD_MS);
