// SPDX-License-Identifier: Apache-2.0
/** Arrays as WGSL can take them. */

import { GpuError, type NpyArray } from './port';

export const sizeOf = (shape: readonly number[]): number => shape.reduce((product, one) => product * one, 1);

/** float32, itself where it is that already; float16 is widened exactly, as the specifications sum it. */
export function float32Of(array: NpyArray): Float32Array<ArrayBuffer> {
  if (array.dtype === 'float32') return new Float32Array(array.data);
  if (array.dtype === 'float16') return widened(new Uint16Array(array.data));
  throw new GpuError('unsupported', `WebGPU has no ${array.dtype}`);
}

function widened(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const table = halves();
  const wide = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i += 1) wide[i] = table[bits[i]!]!;
  return wide;
}

let made: Float32Array<ArrayBuffer> | null = null;

/** Each of the 65,536 float16 as a float32 (IEEE 754). */
function halves(): Float32Array<ArrayBuffer> {
  if (made) return made;
  made = new Float32Array(65_536);
  for (let bits = 0; bits < 65_536; bits += 1) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) made[bits] = fraction ? NaN : sign * Infinity;
    else made[bits] = sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  }
  return made;
}
