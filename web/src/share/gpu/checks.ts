// SPDX-License-Identifier: Apache-2.0
/** What each finding means, as node/qubix_node/selftest/rules.py says it of a node. Pure but for what `Around` asks. */

import { gpu } from '../../lib/strings.share';
import type { Around, Check, GpuInfo, KernelRate } from './port';

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;
const MEMORY_GOOD = GIB;
const MEMORY_MIN = 128 * MIB;
const BUFFER_MIN = 128 * MIB;
const BANDWIDTH_MIN = 100_000;
const BANDWIDTH_GOOD = 1_000_000;
const CLOCK_MS_GOOD = 2_000;
const SHORT_MAX = 200;
const words = gpu.checks;

const one = new Intl.NumberFormat('en', { maximumFractionDigits: 1, useGrouping: false });

function check(id: string, about: { title: string; purpose: string }, found: Partial<Check> & Pick<Check, 'status' | 'actual'>): Check {
  return { id, required: '', unit: '', remedy: '', title: about.title, purpose: about.purpose, ...found, actual: found.actual.slice(0, SHORT_MAX) };
}

export function webgpu(info: GpuInfo): Check {
  const actual = [info.model, info.fallback ? words.webgpu.fallback : ''].filter(Boolean).join(', ');
  return check('webgpu', words.webgpu, { status: info.fallback ? 'warn' : 'pass', actual, required: words.webgpu.required, remedy: info.fallback ? words.webgpu.remedy : '' });
}

export function limits(info: GpuInfo): Check {
  const bytes = Math.min(info.limits['maxBufferSize'] ?? 0, info.limits['maxStorageBufferBindingSize'] ?? 0);
  const good = bytes >= BUFFER_MIN;
  return check('limits', words.limits, { status: good ? 'pass' : 'fail', actual: one.format(bytes / MIB), required: one.format(BUFFER_MIN / MIB), unit: 'MiB', remedy: good ? '' : words.limits.remedy });
}

export function memory(bytes: number): Check {
  const status = bytes >= MEMORY_GOOD ? 'pass' : bytes >= MEMORY_MIN ? 'warn' : 'fail';
  return check('memory', words.memory, { status, actual: one.format(bytes / GIB), required: one.format(MEMORY_GOOD / GIB), unit: 'GiB', remedy: status === 'pass' ? '' : words.memory.remedy });
}

/** `problem` "" when every element lay within what any honest back end can give. */
export function kernel(name: string, ms: number, problem: string): Check {
  const actual = problem || words.kernel.right(one.format(ms));
  return check(`kernel_${name}_webgpu`, { title: words.kernel.title(name), purpose: words.kernel.purpose }, { status: problem ? 'fail' : 'pass', actual, required: words.kernel.required, unit: 'ms', remedy: problem ? words.kernel.remedy : '' });
}

export function rates(found: readonly KernelRate[], wanted: readonly string[], problem: string): Check {
  const missing = wanted.filter((name) => !found.some((rate) => rate.kernel === name));
  const matmul = found.find((rate) => rate.kernel === 'matmul')?.flops_per_s ?? 0;
  const status = !found.length ? 'fail' : missing.length ? 'warn' : 'pass';
  const actual = problem || words.rates.found(found.length, wanted.length, Math.round(matmul / 1e9));
  return check('rates', words.rates, { status, actual, required: words.rates.required, remedy: status === 'pass' ? '' : words.rates.remedy });
}

export async function way(around: Around): Promise<Check> {
  const found = await around.way();
  if (!found) return check('bandwidth', words.bandwidth, { status: 'skip', actual: words.notConnected });
  const { up, down, problem } = found;
  const slowest = Math.min(up, down);
  const status = problem || slowest < BANDWIDTH_MIN ? 'fail' : slowest < BANDWIDTH_GOOD ? 'warn' : 'pass';
  return check('bandwidth', words.bandwidth, {
    status,
    actual: problem || words.bandwidth.found(one.format(up / 1e6), one.format(down / 1e6)),
    required: words.bandwidth.required(one.format(BANDWIDTH_GOOD / 1e6)),
    unit: 'MB/s',
    remedy: status === 'pass' ? '' : problem ? words.bandwidth.unreachable : words.bandwidth.slow,
  });
}

export function clock(around: Around): Check {
  const offset = around.offsetMs();
  if (offset === null) return check('clock', words.clock, { status: 'skip', actual: words.notConnected });
  const good = Math.abs(offset) <= CLOCK_MS_GOOD;
  const [off, within] = [one.format(-offset / 1000), one.format(CLOCK_MS_GOOD / 1000)];
  return check('clock', words.clock, { status: good ? 'pass' : 'warn', actual: off, required: words.clock.required(within), unit: 's', remedy: good ? '' : words.clock.remedy });
}
