// SPDX-License-Identifier: Apache-2.0
/** One WebGPU device, with the few things that every kernel's host does on it. */

import { gpu as told } from '../../lib/strings.share';
import { GpuError, type GpuInfo } from './port';

const RESULT_BYTES_MAX = 256 * 1024 * 1024;
/** What may be asked for beyond the least that every device has. */
const LIMITS = ['maxBufferSize', 'maxStorageBufferBindingSize'] as const;
const TOLD = [
  ...LIMITS,
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupsPerDimension',
] as const;

export type Bound = 'uniform' | 'read' | 'write';

/** What is there, without opening it. Raises `GpuError` with what to do. */
export async function adapterOf(): Promise<GPUAdapter> {
  if (!('gpu' in navigator) || !navigator.gpu) throw missing(isSecureContext ? 'unsupported_browser' : 'insecure_origin');
  let adapter: GPUAdapter | null;
  try {
    adapter = await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' });
  } catch (problem) {
    throw refused(problem);
  }
  if (!adapter) throw missing('no_adapter');
  return adapter;
}

const missing = (code: 'insecure_origin' | 'unsupported_browser' | 'no_adapter'): GpuError =>
  new GpuError(code, told.notHere[code], told.remedies[code]);

export function infoOf(adapter: GPUAdapter, memoryBytes = 0): GpuInfo {
  const { vendor, architecture, device, description } = adapter.info;
  const limits: Record<string, number> = {};
  for (const name of TOLD) limits[name] = adapter.limits[name];
  return {
    model: description || device || nameOf(vendor, architecture),
    vendor,
    architecture,
    fallback: isFallback(adapter),
    limits,
    features: [...adapter.features].sort(),
    memoryBytes,
  };
}

const VENDORS: Record<string, string> = { nvidia: 'NVIDIA', amd: 'AMD', arm: 'Arm', swiftshader: 'SwiftShader' };

/** Browsers mostly tell no more than the maker and the generation: `NVIDIA Ampere`, `AMD RDNA 2`, `Apple Metal 3`. */
export function nameOf(vendor: string, architecture: string): string {
  const words = `${vendor} ${architecture}`.split(/[\s-]+/).filter(Boolean);
  const known = (word: string): string => VENDORS[word] ?? (/\d|^[a-z]{1,4}$/.test(word) && !/^gen$/.test(word) ? word.toUpperCase() : word[0]!.toUpperCase() + word.slice(1));
  return words.map(known).join(' ') || 'GPU';
}

/** The flag moved from the adapter to its info; older browsers have it in the first place alone. */
function isFallback(adapter: GPUAdapter): boolean {
  const old = (adapter as GPUAdapter & { isFallbackAdapter?: boolean }).isFallbackAdapter;
  return adapter.info.isFallbackAdapter ?? old ?? false;
}

export const wordsOf = (problem: unknown): string => (problem instanceof Error ? problem.message : String(problem));
const refused = (problem: unknown): GpuError => new GpuError('refused', told.notHere.refused(wordsOf(problem)), told.remedies.refused);
export const lost = (why: string): GpuError => new GpuError('device_lost', told.notHere.device_lost(why), told.remedies.device_lost);

export class Card {
  /** Rejects when the device is lost; never resolves. */
  readonly gone: Promise<never>;
  /** Set once it is lost. */
  why: string | null = null;
  readonly #layouts = new Map<string, GPUBindGroupLayout>();
  readonly #pipelines = new Map<string, Promise<GPUComputePipeline>>();
  readonly #kept = new Map<string, GPUBuffer>();

  private constructor(
    readonly device: GPUDevice,
    readonly info: GpuInfo,
  ) {
    this.gone = device.lost.then((end) => {
      this.why = end.message || end.reason || 'unknown';
      throw lost(this.why);
    });
    this.gone.catch(() => undefined);
  }

  static async open(): Promise<Card> {
    const adapter = await adapterOf();
    const requiredLimits: Record<string, number> = {};
    for (const name of LIMITS) requiredLimits[name] = adapter.limits[name];
    try {
      return new Card(await adapter.requestDevice({ requiredLimits }), infoOf(adapter));
    } catch (problem) {
      throw refused(problem);
    }
  }

  /** The most that one array on the card may be, in bytes. */
  get arrayBytesMax(): number {
    const { maxBufferSize, maxStorageBufferBindingSize } = this.device.limits;
    return Math.min(maxBufferSize, maxStorageBufferBindingSize, RESULT_BYTES_MAX);
  }

  buffer(bytes: number, usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST): GPUBuffer {
    return this.device.createBuffer({ size: Math.max(16, Math.ceil(bytes / 4) * 4), usage });
  }

  filled(data: Float32Array<ArrayBuffer>): GPUBuffer {
    const made = this.buffer(data.byteLength);
    this.device.queue.writeBuffer(made, 0, data);
    return made;
  }

  /** One array at a time stays on the card from one chunk of a job to the next. */
  kept(key: string, make: () => GPUBuffer): GPUBuffer {
    const found = this.#kept.get(key);
    if (found) return found;
    this.forget();
    const made = make();
    this.#kept.set(key, made);
    return made;
  }

  forget(): void {
    for (const one of this.#kept.values()) one.destroy();
    this.#kept.clear();
  }

  layout(bound: readonly Bound[]): GPUBindGroupLayout {
    const name = bound.join();
    const types = { uniform: 'uniform', read: 'read-only-storage', write: 'storage' } as const;
    const made =
      this.#layouts.get(name) ??
      this.device.createBindGroupLayout({
        entries: bound.map((one, binding) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type: types[one] } })),
      });
    this.#layouts.set(name, made);
    return made;
  }

  /** Compiled once for each device. */
  pipeline(code: string, entryPoint: string, bound: readonly Bound[]): Promise<GPUComputePipeline> {
    const name = `${entryPoint} ${code}`;
    const made =
      this.#pipelines.get(name) ??
      this.device.createComputePipelineAsync({
        layout: this.device.createPipelineLayout({ bindGroupLayouts: [this.layout(bound)] }),
        compute: { module: this.device.createShaderModule({ code }), entryPoint },
      });
    this.#pipelines.set(name, made);
    return this.orGone(made);
  }

  group(bound: readonly Bound[], buffers: readonly GPUBuffer[]): GPUBindGroup {
    const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
    return this.device.createBindGroup({ layout: this.layout(bound), entries });
  }

  /** Resolves when the card has done all that it was given. */
  done(): Promise<void> {
    return this.orGone(this.device.queue.onSubmittedWorkDone());
  }

  async read(from: GPUBuffer, bytes: number): Promise<ArrayBuffer> {
    const size = Math.ceil(bytes / 4) * 4;
    const staging = this.buffer(size, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
    try {
      const encoder = this.device.createCommandEncoder();
      encoder.copyBufferToBuffer(from, 0, staging, 0, size);
      this.device.queue.submit([encoder.finish()]);
      await this.orGone(staging.mapAsync(GPUMapMode.READ, 0, size));
      return staging.getMappedRange(0, size).slice(0, bytes);
    } finally {
      staging.destroy();
    }
  }

  /** Runs `work`; what the card complains of meanwhile becomes a `GpuError`. */
  async watched<T>(work: () => Promise<T>): Promise<T> {
    const scopes = ['validation', 'internal', 'out-of-memory'] as const;
    for (const one of scopes) this.device.pushErrorScope(one);
    let outcome: { value: T } | { problem: unknown };
    try {
      outcome = { value: await work() };
    } catch (problem) {
      outcome = { problem };
    }
    // Told of a lost device, no scope has anything to say.
    const heard = this.why === null ? await Promise.all(scopes.map(() => this.device.popErrorScope().catch(() => null))) : [];
    if (this.why !== null) throw lost(this.why);
    const [memory, ...others] = heard;
    if (memory) throw new GpuError('out_of_memory', told.notHere.out_of_memory(memory.message));
    const wrong = others.find(Boolean);
    if (wrong) throw new GpuError('internal', wrong.message);
    if ('problem' in outcome) throw outcome.problem;
    return outcome.value;
  }

  async orGone<T>(promise: Promise<T>): Promise<T> {
    try {
      return await Promise.race([promise, this.gone]);
    } catch (problem) {
      // A map that fails because the device is going says so before `lost` does.
      await Promise.race([this.gone, new Promise((resolve) => setTimeout(resolve, 0))]).catch(() => undefined);
      throw this.why === null ? problem : lost(this.why);
    }
  }

  close(): void {
    this.forget();
    this.device.destroy();
  }
}
