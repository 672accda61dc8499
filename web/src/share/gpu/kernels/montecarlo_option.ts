// SPDX-License-Identifier: Apache-2.0
/** kernels/qubix_kernels/montecarlo_option: the option as model.py has it, paths by its shader. */

import shader from '../../../../../kernels/qubix_kernels/montecarlo_option/shader.wgsl?raw';
import type { Card } from '../card';
import type { NpyArray, Params } from '../port';
import { inPieces, number, type Host, type Place, type Sized, type Task } from './host';

const BOUND = ['uniform', 'write', 'write', 'write'] as const;
const GROUP = 64;
const COUNTERS_OF_PART = 64;
const PATHS_OF_COUNTER = 4;
const GROUPS_MAX = 65_535;
const WORD = 2 ** 32;
const FIRST_PATHS = 1 << 18;
const sizes = new WeakMap<Card, Sized>();

/** `start`, `spread` and `strike` as the shader takes them, computed in float64 and rounded once. */
export function option(params: Params): [number, number, number] {
  const maturity = number(params, 'maturity');
  const spread = number(params, 'volatility') * Math.sqrt(maturity);
  const sign = params['kind'] === 'put' ? -1 : 1;
  const start = number(params, 'spot') * Math.exp((-spread * spread) / 2);
  const strike = number(params, 'strike') * Math.exp(-number(params, 'rate') * maturity);
  return [sign * start, spread, sign * strike];
}

async function run(task: Task, place: Place): Promise<Record<string, NpyArray>> {
  const { card } = place;
  const lanes = task.units.stop - task.units.start;
  const paths = number(task.params, 'paths_per_lane');
  const parts = Math.ceil(Math.ceil(paths / PATHS_OF_COUNTER) / COUNTERS_OF_PART);
  const most = Math.min(lanes, Math.floor((GROUPS_MAX * GROUP) / parts));
  const [simulate, gather] = await Promise.all([card.pipeline(shader, 'simulate', BOUND), card.pipeline(shader, 'gather', BOUND)]);
  const params = card.buffer(48, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
  const outputs = [card.buffer(4 * lanes), card.buffer(4 * lanes), card.buffer(8 * most * parts)];
  const [sums, squares] = outputs as [GPUBuffer, GPUBuffer];
  const group = card.group(BOUND, [params, ...outputs]);
  try {
    const sized = sizes.get(card) ?? { size: FIRST_PATHS };
    sizes.set(card, sized);
    await inPieces(place, sized, lanes, { scale: paths, most }, (start, stop) => {
      card.device.queue.writeBuffer(params, 0, words(task, paths, parts, start, stop - start));
      const encoder = card.device.createCommandEncoder();
      for (const [pipeline, count] of [[simulate, (stop - start) * parts], [gather, stop - start]] as const) {
        const pass = encoder.beginComputePass();
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group);
        pass.dispatchWorkgroups(Math.ceil(count / GROUP));
        pass.end();
      }
      card.device.queue.submit([encoder.finish()]);
    });
    const made = async (buffer: GPUBuffer): Promise<NpyArray> => ({ dtype: 'float32', shape: [lanes], data: await card.read(buffer, 4 * lanes) });
    return { sums: await made(sums), squares: await made(squares) };
  } finally {
    for (const one of [params, ...outputs]) one.destroy();
  }
}

/** The shader's Params. */
function words(task: Task, paths: number, parts: number, batch: number, lanes: number): ArrayBuffer {
  const seed = number(task.params, 'seed');
  const made = new ArrayBuffer(48);
  new Float32Array(made).set(option(task.params));
  const first = number(task.params, 'first_lane') + task.units.start;
  new Uint32Array(made).set([first, seed % WORD, Math.floor(seed / WORD), paths, parts, batch, lanes], 3);
  return made;
}

export const montecarlo_option: Host = { name: 'montecarlo_option', run };
