// SPDX-License-Identifier: Apache-2.0
/** The worker as tests/web holds it: arrays come and go as base64. No part of the market's pages. */

import { WorkerGpu } from '../src/share/gpu/client';
import { GpuError, type Gpu, type NpyArray, type Params, type Range } from '../src/share/gpu/port';

interface Packed {
  dtype: string;
  shape: number[];
  data: string;
}
type Told<T> = { done: T } | { failed: string; message: string; remedy: string };

function unpacked({ dtype, shape, data }: Packed): NpyArray {
  return { dtype, shape, data: Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0)).buffer };
}

function packed({ dtype, shape, data }: NpyArray): Packed {
  let text = '';
  for (const byte of new Uint8Array(data)) text += String.fromCharCode(byte);
  return { dtype, shape, data: btoa(text) };
}

async function told<T>(work: Promise<T>): Promise<Told<T>> {
  try {
    return { done: await work };
  } catch (problem) {
    if (!(problem instanceof GpuError)) throw problem;
    return { failed: problem.code, message: problem.message, remedy: problem.remedy };
  }
}

const gpu: Gpu = new WorkerGpu();
const never = new AbortController().signal;

async function run(kernel: string, params: Params, inputs: Record<string, Packed>, units: Range): Promise<Record<string, Packed>> {
  const given = Object.fromEntries(Object.entries(inputs).map(([name, one]) => [name, unpacked(one)]));
  const { outputs } = await gpu.run(kernel, params, given, units, never);
  return Object.fromEntries(Object.entries(outputs).map(([name, one]) => [name, packed(one)]));
}

const conformance = {
  gpu,
  run: (kernel: string, params: Params, inputs: Record<string, Packed>, units: Range) => told(run(kernel, params, inputs, units)),
  told,
  /** A self-test without a market around it. */
  alone: { offsetMs: () => null, way: () => Promise.resolve(null) },
};
declare global {
  interface Window {
    conformance: typeof conformance;
  }
}
window.conformance = conformance;
