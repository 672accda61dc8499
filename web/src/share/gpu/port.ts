// SPDX-License-Identifier: Apache-2.0
/**
 * What a tab's GPU can do for whoever holds it: the page asks, a module worker does. Words and shapes of checks and rates
 * are those of the protocol, so that they go on the wire as they are.
 */

export type ParamValue = boolean | number | string;
export type Params = Readonly<Record<string, ParamValue>>;

/** As in a `.npy` file: `dtype` by NumPy's name (`float32`), rows one after the other. */
export interface NpyArray {
  dtype: string;
  shape: number[];
  data: ArrayBuffer;
}

/** Units [start, stop) of a job. */
export interface Range {
  start: number;
  stop: number;
}

export interface GpuInfo {
  /** What people call it; never empty. */
  model: string;
  vendor: string;
  architecture: string;
  /** Computed on the processor (SwiftShader and the like): no GPU. */
  fallback: boolean;
  limits: Record<string, number>;
  features: string[];
  /** What could be had at once. */
  memoryBytes: number;
}

/** `protocol/qubix_protocol/messages.py: KernelRate`. */
export interface KernelRate {
  kernel: string;
  backend: string;
  flops_per_s: number;
  bytes_per_s: number;
  overhead_s: number;
}

/** `protocol/qubix_protocol/selftest.py: Check`. */
export interface Check {
  id: string;
  title: string;
  status: 'pass' | 'warn' | 'fail' | 'skip';
  actual: string;
  required: string;
  unit: string;
  purpose: string;
  remedy: string;
}

/** Bytes a second to the store and back, as the session measured them; `problem` says why there are none. */
export interface Way {
  up: number;
  down: number;
  problem: string;
}

/** What a self-test needs to know of the tab's surroundings; where null is said it is skipped, and told to be. */
export interface Around {
  /** The market's clock less this one's, in milliseconds. */
  offsetMs: () => number | null;
  way: () => Promise<Way | null>;
}

export interface Done {
  outputs: Record<string, NpyArray>;
  /** From the first dispatch to the last result, rests of the throttle in it, pauses not. */
  ms: number;
}

export type GpuCode =
  /** The page did not come by HTTPS (or from this machine), and browsers show no GPU to such pages. */
  | 'insecure_origin'
  /** This browser has no WebGPU, or it is switched off. */
  | 'unsupported_browser'
  /** WebGPU is there, a usable graphics card is not. */
  | 'no_adapter'
  /** The card is there, and the browser or its policy does not give it out. */
  | 'refused'
  /** The card went away (driver, sleep, too long a task), and did not come back at once. */
  | 'device_lost'
  | 'out_of_memory'
  /** The job's own data cannot be computed on (as `kernel.py: BadInput`). */
  | 'bad_input'
  /** A kernel, type or size that this back end does not take: a job that should not have come here. */
  | 'unsupported'
  | 'aborted'
  /** A defect of ours. */
  | 'internal';

/** `remedy` says what a person does about it; "" for codes that only a job meets. */
export class GpuError extends Error {
  constructor(
    readonly code: GpuCode,
    message: string,
    readonly remedy = '',
  ) {
    super(message);
    this.name = 'GpuError';
  }
}

export const BACKEND = 'webgpu';

/** Every call may reject with a `GpuError`. Work is done one after the other, in the order of the calls. */
export interface Gpu {
  info(): Promise<GpuInfo>;
  /**
   * The outputs of these units; `params` and `inputs` are the whole job's. `told` hears the share of the units that is
   * done. The same ArrayBuffer given again is not sent to the worker again.
   */
  run(
    kernel: string,
    params: Params,
    inputs: Record<string, NpyArray>,
    units: Range,
    signal: AbortSignal,
    told?: (fraction: number) => void,
  ): Promise<Done>;
  /** `report` hears of each check as it ends. The answer has them all. */
  selfTest(report: (check: Check) => void, around: Around, signal: AbortSignal): Promise<Check[]>;
  /** Measured the first time, then told for the present share of the card: a throttled card is a slower card. */
  rates(signal: AbortSignal): Promise<KernelRate[]>;
  /** The most of the card's time that is used, over 0 to 1. */
  setShare(share: number): void;
  /** While it is held nothing more is dispatched; what is under way ends. */
  hold(on: boolean): void;
  /** Share of the last seconds in which the card worked for us, 0 to 1. */
  utilisation(): number;
  close(): void;
}
