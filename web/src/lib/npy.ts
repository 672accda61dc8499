// SPDX-License-Identifier: Apache-2.0
/** The header of a `.npy` file (NEP 1): what one says, without its data, and one for data that is made here. */

export interface Meta {
  dtype: string;
  shape: number[];
}

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];
const HEAD_MAX = 65_536;
const KINDS: Record<string, string> = { f2: 'float16', f4: 'float32', f8: 'float64', b1: 'bool' };

/** null: no such file, or one whose bytes stand the other way round or in columns. */
export async function metaOf(file: Blob): Promise<Meta | null> {
  const head = new Uint8Array(await file.slice(0, HEAD_MAX).arrayBuffer());
  if (head.length < 12 || MAGIC.some((byte, at) => head[at] !== byte)) return null;
  const view = new DataView(head.buffer);
  const wide = (head[6] ?? 0) > 1;
  const length = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  const text = new TextDecoder('latin1').decode(head.subarray(wide ? 12 : 10, (wide ? 12 : 10) + length));
  const dtype = /'descr':\s*'([<|=])([fiub])(\d+)'/.exec(text);
  const shape = /'shape':\s*\(([^)]*)\)/.exec(text);
  if (!dtype || !shape || !/'fortran_order':\s*False/.test(text)) return null;
  const kind = `${dtype[2]}${dtype[3]}`;
  const bits = Number(dtype[3]) * 8;
  const name = KINDS[kind] ?? (dtype[2] === 'i' ? `int${bits}` : dtype[2] === 'u' ? `uint${bits}` : '');
  if (!name) return null;
  return { dtype: name, shape: (shape[1] ?? '').split(',').map((one) => one.trim()).filter(Boolean).map(Number) };
}

const CODES: Record<string, string> = { float16: '<f2', float32: '<f4', float64: '<f8', bool: '|b1', int8: '|i1', uint8: '|u1' };

/** A file of these bytes, which lie little-endian and row by row. */
export function npyOf(meta: Meta, data: BlobPart): Blob {
  const wide = /^(u?)int(16|32|64)$/.exec(meta.dtype);
  const code = wide ? `<${wide[1] ? 'u' : 'i'}${Number(wide[2]) / 8}` : CODES[meta.dtype];
  const sizes = meta.shape.length === 1 ? `${meta.shape[0]},` : meta.shape.join(', ');
  const text = `{'descr': '${code}', 'fortran_order': False, 'shape': (${sizes}), }`;
  // The data begin at a multiple of 64 bytes, after a line's end.
  const padded = text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11) + '\n';
  const head = new Uint8Array(10 + padded.length);
  head.set([...MAGIC, 1, 0, padded.length & 255, padded.length >> 8]);
  head.set(new TextEncoder().encode(padded), 10);
  return new Blob([head, data], { type: 'application/octet-stream' });
}
