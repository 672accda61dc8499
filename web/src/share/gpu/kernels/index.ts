// SPDX-License-Identifier: Apache-2.0
import { GpuError } from '../port';
import type { Host } from './host';
import { mandelbrot } from './mandelbrot';
import { matmul } from './matmul';
import { montecarlo_option } from './montecarlo_option';

export const HOSTS: readonly Host[] = [matmul, mandelbrot, montecarlo_option];

export function hostOf(kernel: string): Host {
  const found = HOSTS.find((one) => one.name === kernel);
  if (!found) throw new GpuError('unsupported', `${kernel} does not run on WebGPU`);
  return found;
}
