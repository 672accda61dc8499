// SPDX-License-Identifier: Apache-2.0
/** kernels/qubix_kernels/mandelbrot: coordinates as window.py has them, counts by its shader. */

import shader from '../../../../../kernels/qubix_kernels/mandelbrot/shader.wgsl?raw';
import type { Card } from '../card';
import type { NpyArray } from '../port';
import { inPieces, number, type Host, type Place, type Sized, type Task } from './host';

const BOUND = ['uniform', 'read', 'read', 'write'] as const;
const SIDE = 8;
/** No piece takes longer than this, even where no pixel ever gets out: drivers end what takes seconds. */
const WORST_MS = 200;
const TRIED = { side: 256, most: 1024 };
const FIRST_ITERATIONS = 1 << 22;

interface Speed extends Sized {
  /** Iterations of a millisecond where nothing ends early. */
  perMs: number;
}
const speeds = new WeakMap<Card, Promise<Speed>>();

/** The real part of each column's pixels: computed in float64, rounded once to float32. */
export function real(left: number, pixel: number, width: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: width }, (_, column) => left + (column + 0.5) * pixel);
}

/** The imaginary part of each row's pixels, by the row's number in the whole image. */
export function imaginary(top: number, pixel: number, first: number, height: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: height }, (_, row) => top - (first + row + 0.5) * pixel);
}

async function run(task: Task, place: Place): Promise<Record<string, NpyArray>> {
  const height = task.units.stop - task.units.start;
  const width = number(task.params, 'width');
  const made = new Int32Array(width * height);
  const band = Math.max(SIDE, Math.floor(place.card.arrayBytesMax / (4 * width)));
  for (let row = 0; row < height; row += band) {
    const rows = Math.min(band, height - row);
    const share = { ...place, told: (part: number) => place.told((row + part * rows) / height) };
    made.set(await computed(task, row, rows, share), row * width);
  }
  return { iterations: { dtype: 'int32', shape: [height, width], data: made.buffer } };
}

/** Rows [first, first + height) of the task's. */
async function computed(task: Task, first: number, height: number, place: Place): Promise<Int32Array> {
  const { card } = place;
  const ask = (name: string): number => number(task.params, name);
  const [width, most, pixel] = [ask('width'), ask('max_iterations'), ask('pixel')];
  const rows = imaginary(ask('top'), pixel, ask('first_row') + task.units.start + first, height);
  const pipeline = await card.pipeline(shader, 'escape', BOUND);
  const speed = await speedOf(card, pipeline);
  const image = new Image(card, pipeline, real(ask('left'), pixel, width), rows, most);
  try {
    const across = Math.ceil(width / SIDE);
    const scale = SIDE * SIDE * most;
    const clip = (start: number, stop: number): number => clipped(start, stop, across);
    const options = { scale, most: (WORST_MS * speed.perMs) / scale, clip };
    await inPieces(place, speed, across * Math.ceil(height / SIDE), options, (start, stop) => image.tiles(start, stop, across));
    return new Int32Array(await card.read(image.counts, 4 * width * height));
  } finally {
    image.destroy();
  }
}

/** A piece is a row of tiles, a part of one, or several whole ones. */
function clipped(start: number, stop: number, across: number): number {
  const within = start % across;
  if (within !== 0 || stop - start < across) return Math.min(stop, start - within + across);
  return stop - (stop % across);
}

class Image {
  readonly counts: GPUBuffer;
  readonly #params: GPUBuffer;
  readonly #axes: GPUBuffer[];
  readonly #group: GPUBindGroup;

  constructor(
    readonly card: Card,
    readonly pipeline: GPUComputePipeline,
    readonly x: Float32Array<ArrayBuffer>,
    readonly y: Float32Array<ArrayBuffer>,
    readonly most: number,
  ) {
    this.counts = card.buffer(4 * x.length * y.length);
    this.#params = card.buffer(32, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
    this.#axes = [card.filled(x), card.filled(y)];
    this.#group = card.group(BOUND, [this.#params, ...this.#axes, this.counts]);
  }

  /** Tiles of `SIDE` × `SIDE` pixels, `across` in a row: whole rows of them, or a part of one. */
  tiles(start: number, stop: number, across: number): void {
    const whole = stop - start >= across;
    const [column, row] = [(start % across) * SIDE, Math.floor(start / across) * SIDE];
    const columns = Math.min(this.x.length - column, (whole ? across : stop - start) * SIDE);
    this.dispatch(column, row, columns, Math.min(this.y.length - row, (whole ? (stop - start) / across : 1) * SIDE));
  }

  dispatch(column: number, row: number, columns: number, rows: number): void {
    const { device } = this.card;
    device.queue.writeBuffer(this.#params, 0, new Uint32Array([this.x.length, this.y.length, this.most, column, row, columns, rows, 0]));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(this.pipeline);
    pass.setBindGroup(0, this.#group);
    pass.dispatchWorkgroups(Math.ceil(columns / SIDE), Math.ceil(rows / SIDE));
    pass.end();
    device.queue.submit([encoder.finish()]);
  }

  destroy(): void {
    for (const one of [this.counts, this.#params, ...this.#axes]) one.destroy();
  }
}

function speedOf(card: Card, pipeline: GPUComputePipeline): Promise<Speed> {
  const known = speeds.get(card) ?? measured(card, pipeline);
  speeds.set(card, known);
  known.catch(() => speeds.delete(card));
  return known;
}

/** By points in the middle of the set, none of which ever gets out; the second of two runs counts. */
async function measured(card: Card, pipeline: GPUComputePipeline): Promise<Speed> {
  const { side, most } = TRIED;
  const image = new Image(card, pipeline, new Float32Array(side), new Float32Array(side), most);
  let ms = 0;
  try {
    for (let turn = 0; turn < 2; turn += 1) {
      const from = performance.now();
      image.dispatch(0, 0, side, side);
      await card.done();
      ms = performance.now() - from;
    }
  } finally {
    image.destroy();
  }
  return { size: FIRST_ITERATIONS, perMs: (side * side * most) / Math.max(ms, 0.1) };
}

export const mandelbrot: Host = { name: 'mandelbrot', run };
