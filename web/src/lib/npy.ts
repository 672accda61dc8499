// SPDX-License-Identifier: Apache-2.0
/** What the header of a `.npy` file says (NEP 1). Nothing of its data is read. */

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
