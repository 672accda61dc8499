// SPDX-License-Identifier: Apache-2.0
/** The card's look at itself, in the worker: what it is, what it holds, whether it computes rightly, and how fast. */

import * as checks from './checks';
import { failureOf, type Engine } from './engine';
import { HOSTS } from './kernels';
import { measured } from './measuring';
import { throwIfAborted } from './pace';
import type { Check, KernelRate } from './port';
import { outside, references } from './references';

/** Rates that were measured just now need not be measured again. */
const FRESH_MS = 60_000;

/** Rejects once `signal` is aborted. */
export async function tested(engine: Engine, report: (check: Check) => void, signal: AbortSignal): Promise<Check[]> {
  const found: Check[] = [];
  const tell = (check: Check): void => {
    throwIfAborted(signal);
    found.push(check);
    report(check);
  };
  const info = await engine.info();
  tell(checks.webgpu(info));
  tell(checks.limits(info));
  tell(checks.memory(await engine.memory()));
  for (const { name } of HOSTS) tell(await judged(engine, name, signal));
  let [rates, problem]: [KernelRate[], string] = [[], ''];
  try {
    rates = await measured(engine, signal, FRESH_MS);
  } catch (why) {
    problem = failureOf(why).message;
  }
  tell(checks.rates(rates, HOSTS.map((host) => host.name), problem));
  return found;
}

async function judged(engine: Engine, name: string, signal: AbortSignal): Promise<Check> {
  let total = 0;
  try {
    for (const one of references.filter((reference) => reference.kernel === name)) {
      const inputs = Object.fromEntries(Object.entries(one.inputs).map(([key, array]) => [key, { key: `reference ${key}`, array }]));
      const { outputs, ms } = await engine.run(name, one.params, inputs, { start: 0, stop: one.units }, signal);
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
