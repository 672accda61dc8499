// SPDX-License-Identifier: Apache-2.0
/** Inputs as they lie in the store (`.npy`), and a chunk's outputs as one artifact (`qubix_protocol.arrays`). */

import type { NpyArray } from '../gpu/port';
import { metaOf } from '../../lib/npy';
import { concat, type Bytes } from './bytes';
import { encode, Raw } from './msgpack';

const ARRAY_EXT = 1;

/** null: not a `.npy` file that can be computed on. */
export async function readNpy(data: Bytes): Promise<NpyArray | null> {
  const meta = await metaOf(new Blob([data]));
  if (!meta) return null;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const wide = view.getUint8(6) > 1;
  const start = wide ? 12 + view.getUint32(8, true) : 10 + view.getUint16(8, true);
  return { ...meta, data: data.slice(start).buffer };
}

/** `arrays` in the order of the kernel's outputs. */
export function packArrays(arrays: Record<string, NpyArray>): Bytes {
  const fields = Object.entries(arrays).map(([name, array]) => [name, new Raw(ext(array))] as const);
  return encode(Object.fromEntries(fields));
}

function ext({ dtype, shape, data }: NpyArray): Bytes {
  const head = encode([dtype, shape]);
  const content = new Uint8Array(data);
  return concat(extHead(1 + head.length + content.length), Uint8Array.of(head.length), head, content);
}

function extHead(size: number): Bytes {
  const fixed = [1, 2, 4, 8, 16].indexOf(size);
  if (fixed >= 0) return Uint8Array.of(0xd4 + fixed, ARRAY_EXT);
  if (size <= 0xff) return Uint8Array.of(0xc7, size, ARRAY_EXT);
  const view = new DataView(new ArrayBuffer(size <= 0xffff ? 4 : 6));
  view.setUint8(0, size <= 0xffff ? 0xc8 : 0xc9);
  if (size <= 0xffff) view.setUint16(1, size);
  else view.setUint32(1, size);
  view.setUint8(view.byteLength - 1, ARRAY_EXT);
  return new Uint8Array(view.buffer);
}

