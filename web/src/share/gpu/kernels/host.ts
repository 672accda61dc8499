// SPDX-License-Identifier: Apache-2.0
/** What every kernel's host is, and how it goes through its work. */

import type { Card } from '../card';
import { nextSize, TARGET_MS, type Pace } from '../pace';
import { GpuError, type NpyArray, type Params, type Range } from '../port';

/** An input, and a name under which what was made of it may be kept. */
export interface Input {
  key: string;
  array: NpyArray;
}

export interface Task {
  params: Params;
  inputs: Readonly<Record<string, Input>>;
  units: Range;
}

export interface Place {
  card: Card;
  pace: Pace;
  signal: AbortSignal;
  told: (fraction: number) => void;
}

export interface Host {
  name: string;
  /** The outputs of the task's units. */
  run(task: Task, place: Place): Promise<Record<string, NpyArray>>;
}

/** What pieces of a kernel this large took lately: carried from one chunk to the next, on one device. */
export interface Sized {
  size: number;
}

/**
 * Hands out [start, stop) from 0 to `whole` until all is done, each piece sized by how long the last one took: a multiple
 * of `step` (but for the last), of `most` at most, and as `clip` shortens it. `scale`: what one of them counts in `sized`.
 */
export async function inPieces(
  place: Place,
  sized: Sized,
  whole: number,
  options: { step?: number; most?: number; scale?: number; clip?: (start: number, stop: number) => number },
  dispatch: (start: number, stop: number) => void,
): Promise<void> {
  const { step = 1, most = Infinity, scale = 1, clip = (_, stop) => stop } = options;
  let start = 0;
  while (start < whole) {
    await place.pace.go(place.signal);
    const wish = Math.floor(Math.min(sized.size / scale, most) / step) * step;
    const stop = clip(start, Math.min(whole, start + Math.max(step, wish)));
    const from = performance.now();
    dispatch(start, stop);
    await place.card.done();
    const to = performance.now();
    const full = (stop - start) * scale;
    // A last piece that is small says little of what a whole one takes.
    if (full >= sized.size / 2 || to - from > 2 * TARGET_MS) sized.size = nextSize(full, to - from);
    start = stop;
    place.told(start / whole);
    await place.pace.rest(from, to, place.signal);
  }
}

export function number(params: Params, name: string): number {
  const value = params[name];
  if (typeof value !== 'number') throw new GpuError('unsupported', `the parameter ${name} is no number`);
  return value;
}

export function input(task: Task, name: string): Input {
  const found = task.inputs[name];
  if (!found) throw new GpuError('unsupported', `the input ${name} is missing`);
  return found;
}
