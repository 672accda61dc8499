// SPDX-License-Identifier: Apache-2.0
/** How fast the card runs each kernel, as node/qubix_node/rates.py measures a node's: by larger and larger examples. */

import type { Engine } from './engine';
import { HOSTS } from './kernels';
import { BACKEND, type KernelRate } from './port';
import { drawn, examples, type Example } from './references';

const ENOUGH_MS = 60;
const KERNEL_MS = 2_500;
const REPEATS = 2;
const SIZES_APART = 4;
const CLEAR_TIMES = 1.5;
const OVERHEAD_S_MAX = 10;
const SHORTEST_S = 1e-6;

export interface Ran {
  flops: number;
  bytes: number;
  s: number;
}

let known: { rates: KernelRate[]; ms: number } | null = null;

/**
 * At the present share of the card: a throttled card is a slower card. Measured at full speed, unless that was done
 * within `freshMs`.
 */
export async function measured(engine: Engine, signal: AbortSignal, freshMs = Infinity): Promise<KernelRate[]> {
  if (!known || performance.now() - known.ms > freshMs) {
    engine.pace.full = true;
    try {
      const rates: KernelRate[] = [];
      for (const { name } of HOSTS) rates.push(rateOf(name, await ran(engine, name, signal)));
      known = { rates, ms: performance.now() };
    } finally {
      engine.pace.full = false;
    }
  }
  const { share } = engine.pace;
  return known.rates.map((rate) => ({ ...rate, flops_per_s: rate.flops_per_s * share, bytes_per_s: rate.bytes_per_s * share }));
}

/** The first run compiles, and does not count. */
async function ran(engine: Engine, kernel: string, signal: AbortSignal): Promise<Ran[]> {
  const found: Ran[] = [];
  const sizes = examples.filter((one) => one.kernel === kernel);
  const since = performance.now();
  await timed(engine, sizes[0]!, signal);
  let [at, repeats] = [0, REPEATS];
  while (repeats && (!found.length || performance.now() - since < KERNEL_MS)) {
    const size = sizes[at]!;
    const s = await timed(engine, size, signal);
    found.push({ flops: size.flops, bytes: size.bytes_moved, s });
    if (s * 1000 >= ENOUGH_MS || at === sizes.length - 1) repeats -= 1;
    else at += 1;
  }
  return found;
}

async function timed(engine: Engine, { kernel, params, units, inputs }: Example, signal: AbortSignal): Promise<number> {
  const given = Object.fromEntries(
    Object.entries(inputs).map(([name, form]) => [name, { key: `example ${name} ${form.shape.join()}`, array: drawn(form) }]),
  );
  const { ms } = await engine.run(kernel, params, given, { start: 0, stop: units }, signal);
  return Math.max(ms / 1000, SHORTEST_S);
}

/** What every run takes besides is told from the rest by examples of different sizes; the rates are those beyond it. */
export function rateOf(kernel: string, found: readonly Ran[]): KernelRate {
  const overhead = overheadOf(found);
  const clear = found.filter((one) => one.s >= CLEAR_TIMES * overhead);
  const slowest = found.reduce((most, one) => (one.s > most.s ? one : most));
  const beyond = (clear.length ? clear : [slowest]).map((one) => ({ ...one, s: Math.max(one.s - overhead, SHORTEST_S) }));
  return {
    kernel,
    backend: BACKEND,
    flops_per_s: Math.max(...beyond.map((one) => one.flops / one.s)),
    bytes_per_s: Math.max(...beyond.map((one) => one.bytes / one.s)),
    overhead_s: overhead,
  };
}

/** On the line through the largest example and a small one, where there is no work; the least of all small ones. */
function overheadOf(found: readonly Ran[]): number {
  const largest = found.reduce((most, one) => (one.flops > most.flops || (one.flops === most.flops && one.s < most.s) ? one : most));
  const guesses = found
    .filter((one) => one.flops * SIZES_APART <= largest.flops)
    .map((one) => Math.max(0, one.s - (one.flops * Math.max(0, largest.s - one.s)) / (largest.flops - one.flops)));
  return guesses.length ? Math.min(...guesses, OVERHEAD_S_MAX) : 0;
}
