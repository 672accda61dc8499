// SPDX-License-Identifier: Apache-2.0
/** A result as a person looks at it: its numbers, an image, a line. Nothing here runs what it reads. */

import { metaOf, type Meta } from './npy';

export interface Numbers {
  meta: Meta;
  at: (index: number) => number;
  length: number;
}
/** More is for a program: the page offers the file. */
export const PREVIEW_BYTES_MAX = 32 * 1024 * 1024;

type Reader = (view: DataView, at: number) => number;
const READERS: Record<string, { bytes: number; read: Reader }> = {
  bool: { bytes: 1, read: (view, at) => view.getUint8(at) },
  int8: { bytes: 1, read: (view, at) => view.getInt8(at) },
  uint8: { bytes: 1, read: (view, at) => view.getUint8(at) },
  int16: { bytes: 2, read: (view, at) => view.getInt16(at, true) },
  uint16: { bytes: 2, read: (view, at) => view.getUint16(at, true) },
  int32: { bytes: 4, read: (view, at) => view.getInt32(at, true) },
  uint32: { bytes: 4, read: (view, at) => view.getUint32(at, true) },
  int64: { bytes: 8, read: (view, at) => Number(view.getBigInt64(at, true)) },
  uint64: { bytes: 8, read: (view, at) => Number(view.getBigUint64(at, true)) },
  float16: { bytes: 2, read: (view, at) => half(view.getUint16(at, true)) },
  float32: { bytes: 4, read: (view, at) => view.getFloat32(at, true) },
  float64: { bytes: 8, read: (view, at) => view.getFloat64(at, true) },
};

export const bytesOf = (meta: Meta): number =>
  meta.shape.reduce((all, one) => all * one, 1) * (READERS[meta.dtype]?.bytes ?? 8);

/** IEEE 754 half precision. */
function half(bits: number): number {
  const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -14 * (fraction / 1024);
}

/** null: not a `.npy` file that can be shown. */
export async function numbersOf(file: Blob): Promise<Numbers | null> {
  const meta = await metaOf(file);
  const reader = meta && READERS[meta.dtype];
  if (!meta || !reader) return null;
  const length = meta.shape.reduce((all, one) => all * one, 1);
  const start = file.size - length * reader.bytes;
  if (start < 10) return null;
  const view = new DataView(await file.slice(start).arrayBuffer());
  return { meta, length, at: (index) => reader.read(view, index * reader.bytes) };
}

/** Rows and columns of what can be an image; null for anything else. */
export function imageSize(meta: Meta): { rows: number; columns: number } | null {
  const [rows, columns] = meta.shape;
  if (meta.shape.length !== 2 || rows === undefined || columns === undefined) return null;
  return rows >= 8 && columns >= 8 && rows <= 8192 && columns <= 8192 ? { rows, columns } : null;
}

/** Dark to light in one hue and a half: readable without colour, since brightness grows throughout. */
const STOPS: [number, number, number][] = [
  [9, 14, 28],
  [22, 60, 96],
  [17, 122, 116],
  [104, 187, 118],
  [247, 236, 150],
];
function colour(share: number): [number, number, number] {
  const place = Math.min(0.9999, Math.max(0, share)) * (STOPS.length - 1);
  const [low, rest] = [Math.floor(place), place % 1];
  const [a, b] = [STOPS[low]!, STOPS[low + 1]!];
  return [0, 1, 2].map((one) => a[one]! + (b[one]! - a[one]!) * rest) as [number, number, number];
}

/** The lowest and highest number that is one. */
export function range(numbers: Numbers): { low: number; high: number } {
  let [low, high] = [Infinity, -Infinity];
  for (let at = 0; at < numbers.length; at += 1) {
    const value = numbers.at(at);
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? { low, high } : { low: 0, high: 0 };
}

/** At most `most` pixels on a side: of more, every second, third, … is drawn. What is no number is grey. */
export function imageOf(numbers: Numbers, most = 1024): ImageData | null {
  const size = imageSize(numbers.meta);
  if (!size) return null;
  const step = Math.ceil(Math.max(size.rows, size.columns) / most);
  const [height, width] = [Math.ceil(size.rows / step), Math.ceil(size.columns / step)];
  const { low, high } = range(numbers);
  // Counts such as those of an escape-time fractal lie near their low end: the root spreads them.
  const curve = low >= 0 && numbers.meta.dtype.includes('int') ? 0.5 : 1;
  const image = new ImageData(width, height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const value = numbers.at(y * step * size.columns + x * step);
      const shade = high > low ? ((value - low) / (high - low)) ** curve : 0;
      image.data.set(Number.isFinite(value) ? [...colour(shade), 255] : [128, 128, 128, 255], (y * width + x) * 4);
    }
  }
  return image;
}

export const shown = (value: number): string =>
  Number.isInteger(value) ? String(value) : value.toPrecision(6).replace(/\.?0+(e|$)/, '$1');
