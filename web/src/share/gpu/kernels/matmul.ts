// SPDX-License-Identifier: Apache-2.0
/** kernels/qubix_kernels/matmul: refusals as norms.py has them, products by its shader, in tiles that a card can hold. */

import shader from '../../../../../kernels/qubix_kernels/matmul/shader.wgsl?raw';
import type { Card } from '../card';
import { float32Of } from '../numbers';
import { GpuError, type NpyArray } from '../port';
import { inPieces, input, type Host, type Input, type Place, type Sized, type Task } from './host';

const BOUND = ['uniform', 'read', 'read', 'write'] as const;
/** Of numbers: what a workgroup of the shader computes. */
const GROUP_ROWS = 32;
const GROUP_FOURS = 16;
/** Fours of k that one invocation adds up at most. */
const DEPTH_MAX = 16_384;
const FIRST_FLOPS = 1 << 25;
const FLOAT32_MAX = 3.4028234663852886e38;
const sizes = new WeakMap<Card, Sized>();

interface Wide {
  key: string;
  data: Float32Array<ArrayBuffer>;
  /** The largest norm of its columns. */
  norm: number;
}
/** b stays the same from chunk to chunk: widened and judged once. */
let known: Wide | null = null;

async function run(task: Task, place: Place): Promise<Record<string, NpyArray>> {
  const [a, b] = [input(task, 'a'), input(task, 'b')];
  const [, k] = formOf(a.array);
  const [depth, n] = formOf(b.array);
  if (k !== depth) throw new GpuError('unsupported', 'a and b do not fit together');
  const rows = task.units.stop - task.units.start;
  const left = float32Of(a.array).subarray(task.units.start * k, task.units.stop * k);
  const right = rightOf(b, k, n);
  refuse(largestRowNorm(left, k), right.norm);
  const made = new Float32Array(rows * n);
  const pipeline = await place.card.pipeline(shader, 'product', BOUND);
  const tiles = tilesOf(rows, k, n, place.card.arrayBytesMax);
  const sized = sizes.get(place.card) ?? { size: FIRST_FLOPS };
  sizes.set(place.card, sized);
  for (const [number, tile] of tiles.entries()) {
    const share = { ...place, told: (part: number) => place.told((number + part) / tiles.length) };
    await product(tile, { pipeline, left, right, k, n, whole: tiles.length === 1 }, made, sized, share);
  }
  return { c: { dtype: 'float32', shape: [rows, n], data: made.buffer } };
}

function formOf(array: NpyArray): [number, number] {
  const [rows, columns] = array.shape;
  if (array.shape.length !== 2 || !rows || !columns) throw new GpuError('unsupported', 'a matrix is wanted');
  return [rows, columns];
}

function rightOf(b: Input, k: number, n: number): Wide {
  if (known?.key === b.key) return known;
  const data = float32Of(b.array);
  known = { key: b.key, data, norm: largestColumnNorm(data, k, n) };
  return known;
}

/** float32's squares neither over- nor underflow in JavaScript's numbers. NaN and infinity come through. */
export function largestRowNorm(matrix: Float32Array, columns: number): number {
  let largest = 0;
  for (let start = 0; start < matrix.length; start += columns) {
    let sum = 0;
    for (let i = start; i < start + columns; i += 1) sum += matrix[i]! * matrix[i]!;
    if (!(sum <= largest)) largest = sum;
    if (Number.isNaN(sum)) break;
  }
  return Math.sqrt(largest);
}

export function largestColumnNorm(matrix: Float32Array, rows: number, columns: number): number {
  const sums = new Float64Array(columns);
  for (let row = 0, i = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1, i += 1) sums[column]! += matrix[i]! * matrix[i]!;
  }
  let largest = 0;
  for (const sum of sums) if (!(sum <= largest)) largest = sum;
  return sums.some(Number.isNaN) ? NaN : Math.sqrt(largest);
}

function refuse(rows: number, columns: number): void {
  for (const [name, norm] of [['a', rows], ['b', columns]] as const) {
    if (!Number.isFinite(norm)) {
      throw new GpuError('bad_input', `${name} contains NaN, infinity or numbers too large; give finite numbers only`);
    }
  }
  if (!(rows * columns <= FLOAT32_MAX / 16)) {
    throw new GpuError('bad_input', 'products of a and b could overflow float32; scale them down, or use float64');
  }
}

/** Rows [row, row + rows) of fours [four, four + fours) of columns. */
interface Tile {
  row: number;
  rows: number;
  four: number;
  fours: number;
}

const filledUp = (size: number): number => Math.ceil(size / 4);

/** None of whose three arrays is larger than `most` bytes. */
export function tilesOf(rows: number, k: number, n: number, most: number): Tile[] {
  const depth = filledUp(k);
  const fours = filledUp(n);
  const across = Math.min(fours, atLeast(GROUP_FOURS, Math.floor(most / (depth * 4 * 16))));
  const down = Math.min(rows, atLeast(GROUP_ROWS, Math.floor(Math.min(most / (depth * 16), most / (across * 16)))));
  const tiles: Tile[] = [];
  for (let four = 0; four < fours; four += across) {
    for (let row = 0; row < rows; row += down) {
      tiles.push({ row, rows: Math.min(down, rows - row), four, fours: Math.min(across, fours - four) });
    }
  }
  return tiles;
}

/** In whole groups where there is room for one. */
const atLeast = (group: number, size: number): number => Math.max(1, size >= group ? size - (size % group) : size);

interface Given {
  pipeline: GPUComputePipeline;
  left: Float32Array<ArrayBuffer>;
  right: Wide;
  k: number;
  n: number;
  /** One tile is everything: then b may stay on the card. */
  whole: boolean;
}

async function product(tile: Tile, given: Given, made: Float32Array<ArrayBuffer>, sized: Sized, place: Place): Promise<void> {
  const { card } = place;
  const { k, n } = given;
  const depth = filledUp(k);
  const owned: GPUBuffer[] = [];
  const own = (buffer: GPUBuffer): GPUBuffer => {
    owned.push(buffer);
    return buffer;
  };
  const lay = (): GPUBuffer => card.filled(laid(given.right.data, 0, k, n, 4 * depth, 4 * tile.four, 4 * tile.fours));
  try {
    const b = given.whole ? card.kept(given.right.key, lay) : own(lay());
    const a = own(card.filled(laid(given.left, tile.row, tile.rows, k, tile.rows, 0, 4 * depth)));
    const c = own(card.buffer(16 * tile.rows * tile.fours));
    const params = own(card.buffer(32, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST));
    const group = card.group(BOUND, [params, a, b, c]);
    const dispatch = (firstRow: number, rows: number, first: number, stop: number): void => {
      card.device.queue.writeBuffer(params, 0, new Uint32Array([rows, tile.fours, depth, first, stop, firstRow, first ? 1 : 0, 0]));
      const encoder = card.device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(given.pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(Math.ceil(tile.fours / GROUP_FOURS), Math.ceil(rows / GROUP_ROWS));
      pass.end();
      card.device.queue.submit([encoder.finish()]);
    };
    await multiplied(tile, depth, sized, place, dispatch);
    takeOut(new Float32Array(await card.read(c, 16 * tile.rows * tile.fours)), tile, made, n);
  } finally {
    for (const one of owned) one.destroy();
  }
}

/** Pieces of rows; where a single group of rows is too much for one, pieces of k within it. */
async function multiplied(
  tile: Tile,
  depth: number,
  sized: Sized,
  place: Place,
  dispatch: (firstRow: number, rows: number, first: number, stop: number) => void,
): Promise<void> {
  const flopsOfRow = 2 * 4 * tile.fours * 4 * depth;
  if (depth <= DEPTH_MAX && sized.size >= GROUP_ROWS * flopsOfRow) {
    await inPieces(place, sized, tile.rows, { step: GROUP_ROWS, scale: flopsOfRow }, (start, stop) => dispatch(start, stop - start, 0, depth));
    return;
  }
  for (let row = 0; row < tile.rows; row += GROUP_ROWS) {
    const rows = Math.min(GROUP_ROWS, tile.rows - row);
    const within = { ...place, told: (part: number) => place.told((row + part * rows) / tile.rows) };
    await inPieces(within, sized, depth, { most: DEPTH_MAX, scale: (flopsOfRow * rows) / depth }, (first, stop) => dispatch(row, rows, first, stop));
  }
}

/** A block of a matrix, filled up with zeros to `lines` × `wide`. The matrix itself where nothing is to do. */
export function laid(
  matrix: Float32Array<ArrayBuffer>,
  row: number,
  rows: number,
  columns: number,
  lines: number,
  column: number,
  wide: number,
): Float32Array<ArrayBuffer> {
  const inside = Math.min(wide, columns - column);
  if (inside === columns && wide === columns && lines === rows) return matrix.subarray(row * columns, (row + rows) * columns);
  const made = new Float32Array(lines * wide);
  for (let line = 0; line < rows; line += 1) {
    const at = (row + line) * columns + column;
    made.set(matrix.subarray(at, at + inside), line * wide);
  }
  return made;
}

function takeOut(found: Float32Array<ArrayBuffer>, tile: Tile, made: Float32Array<ArrayBuffer>, n: number): void {
  const wide = 4 * tile.fours;
  const inside = Math.min(wide, n - 4 * tile.four);
  for (let line = 0; line < tile.rows; line += 1) {
    made.set(found.subarray(line * wide, line * wide + inside), (tile.row + line) * n + 4 * tile.four);
  }
}

export const forget = (): void => {
  known = null;
};
export const matmul: Host = { name: 'matmul', run };
