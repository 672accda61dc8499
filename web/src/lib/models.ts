// SPDX-License-Identifier: Apache-2.0
/** ONNX models on this side: the file as a job takes it, arrays that are made here, and what fits an input. */

import type { Schemas } from './api/client';
import { npyOf, type Meta } from './npy';

export type View = Schemas['ModelView'];
export type Port = Schemas['ModelPort'];
export interface Made {
  file: Blob;
  meta: Meta;
}

/** Larger inputs are tried as zeros of their form, and sent when the job is. */
export const TRIED_BYTES_MAX = 64 * 1024 * 1024;
const MADE_MAX = 4_000_000;

/** The bytes of an .onnx file as an array, which is what a job takes. */
export const wrapped = (file: Blob): Made => {
  const meta = { dtype: 'uint8', shape: [file.size] };
  return { file: npyOf(meta, file), meta };
};

export const formOf = (port: Port): string => (port.dims ? `[${port.dims.join(', ')}]` : '[…]');

/** A shape to begin with: the model's own, with one unit for what it leaves open. */
export const startShape = (port: Port): string =>
  (port.dims ?? []).map((one, at) => (typeof one === 'number' ? one : at === 0 ? 8 : 1)).join(', ');

/** Whether an array could be this input: as it is, or as a stack of inputs with one axis more in front. */
export function misfit(port: Port, meta: Meta): 'dtype' | 'shape' | null {
  if (meta.dtype !== port.dtype) return 'dtype';
  if (!port.dims) return null;
  const fits = (shape: number[], dims: (number | string)[]): boolean =>
    shape.length === dims.length && dims.every((want, at) => typeof want === 'string' || want === shape[at]);
  const [, ...rest] = port.dims;
  const single = port.dims[0] === 1 && fits(meta.shape.slice(1), rest);
  return fits(meta.shape, port.dims) || fits(meta.shape.slice(1), port.dims) || single ? null : 'shape';
}

/** null: no shape. `8, 3, 224` or `[8, 3, 224]`. */
export function shapeOf(text: string): number[] | null {
  const parts = text.replace(/^\s*[([]|[)\]]\s*$/g, '').split(',').map((one) => one.trim()).filter(Boolean);
  const sizes = parts.map(Number);
  const good = sizes.every((one) => Number.isInteger(one) && one >= 1) && sizes.length <= 8;
  return good && sizes.reduce((all, one) => all * one, 1) <= MADE_MAX ? sizes : null;
}

const HOLDERS = {
  float32: Float32Array,
  float64: Float64Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  bool: Uint8Array,
} as const;

/** Numbers in a dtype; null: this browser cannot hold it, or one of them does not fit. */
function held(dtype: string, numbers: number[]): ArrayBuffer | null {
  if (dtype === 'int64' || dtype === 'uint64') {
    if (!numbers.every(Number.isSafeInteger) || (dtype === 'uint64' && numbers.some((one) => one < 0))) return null;
    return BigInt64Array.from(numbers, BigInt).buffer;
  }
  const kind = HOLDERS[dtype as keyof typeof HOLDERS];
  if (!kind) return null;
  const found = kind.from(numbers);
  const same = dtype.startsWith('float') || numbers.every((one, at) => found[at] === one);
  return same && (dtype !== 'bool' || numbers.every((one) => one === 0 || one === 1)) ? found.buffer : null;
}

export const canMake = (dtype: string): boolean => held(dtype, [0]) !== null;

/** Numbers as they were written, lists in lists; null: not an array of this dtype. */
export function pasted(dtype: string, text: string): Made | null {
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch {
    return null;
  }
  const shape: number[] = [];
  for (let one = found; Array.isArray(one); one = one[0] as unknown) shape.push(one.length);
  const numbers: number[] = [];
  if (!flat(found, shape, 0, numbers) || shape.includes(0)) return null;
  const data = held(dtype, numbers);
  return data && { file: npyOf({ dtype, shape }, data), meta: { dtype, shape } };
}

function flat(found: unknown, shape: number[], depth: number, into: number[]): boolean {
  if (depth < shape.length) return Array.isArray(found) && found.length === shape[depth] && found.every((one) => flat(one, shape, depth + 1, into));
  if (typeof found === 'boolean') into.push(Number(found));
  else if (typeof found === 'number' && Number.isFinite(found)) into.push(found);
  else return false;
  return into.length <= MADE_MAX;
}

/** Zeros, or noise: normal for floats, 0 or 1 for everything else. */
export function generated(dtype: string, shape: number[], how: 'zeros' | 'noise', draw: () => number = Math.random): Made | null {
  const size = shape.reduce((all, one) => all * one, 1);
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());
  const one = how === 'zeros' ? () => 0 : dtype.startsWith('float') ? normal : () => (draw() < 0.5 ? 0 : 1);
  const data = held(dtype, Array.from({ length: size }, one));
  return data && { file: npyOf({ dtype, shape }, data), meta: { dtype, shape } };
}
