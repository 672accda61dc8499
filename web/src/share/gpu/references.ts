// SPDX-License-Identifier: Apache-2.0
/** references.json, which scripts/web_references.py writes, with its arrays unpacked. */

import told from './references.json';
import { sizeOf } from './numbers';
import type { NpyArray, Params } from './port';

interface Packed {
  dtype: string;
  shape: number[];
  data: string;
}

export interface Reference {
  kernel: string;
  params: Params;
  units: number;
  inputs: Record<string, NpyArray>;
  outputs: Record<string, { low: NpyArray; high: NpyArray }>;
}

/** `inputs` are forms: what is in them costs nothing. */
export interface Example {
  kernel: string;
  params: Params;
  units: number;
  inputs: Record<string, { dtype: string; shape: number[] }>;
  flops: number;
  bytes_moved: number;
}

const each = <A, B>(of: Record<string, A>, make: (one: A) => B): Record<string, B> =>
  Object.fromEntries(Object.entries(of).map(([name, one]) => [name, make(one)]));

function unpacked({ dtype, shape, data }: Packed): NpyArray {
  const text = atob(data);
  return { dtype, shape, data: Uint8Array.from(text, (letter) => letter.charCodeAt(0)).buffer };
}

const packed = told.references as unknown as {
  kernel: string;
  params: Params;
  units: number;
  inputs: Record<string, Packed>;
  outputs: Record<string, { low: Packed; high: Packed }>;
}[];

export const references: readonly Reference[] = packed.map((one) => ({
  ...one,
  inputs: each(one.inputs, unpacked),
  outputs: each(one.outputs, ({ low, high }) => ({ low: unpacked(low), high: unpacked(high) })),
}));

export const examples = told.examples as unknown as readonly Example[];

/** Numbers between -1 and 1, for an example's input. */
export function drawn({ dtype, shape }: { dtype: string; shape: number[] }): NpyArray {
  const data = new Float32Array(sizeOf(shape));
  for (let i = 0; i < data.length; i += 1) data[i] = 2 * Math.random() - 1;
  return { dtype, shape, data: data.buffer };
}

/** How many elements are not within their bounds; all of them where the form is another. */
export function outside(found: NpyArray | undefined, low: NpyArray, high: NpyArray): number {
  if (!found || found.dtype !== low.dtype || found.shape.join() !== low.shape.join()) return sizeOf(low.shape);
  const [values, least, most] = [found, low, high].map(numbersOf) as [Numbers, Numbers, Numbers];
  let count = 0;
  for (let i = 0; i < values.length; i += 1) if (!(values[i]! >= least[i]! && values[i]! <= most[i]!)) count += 1;
  return count;
}

type Numbers = Float32Array | Int32Array;
const numbersOf = (array: NpyArray): Numbers =>
  array.dtype === 'int32' ? new Int32Array(array.data) : new Float32Array(array.data);
