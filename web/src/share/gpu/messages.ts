// SPDX-License-Identifier: Apache-2.0
/** What the page and the worker say to each other. */

import type { Check, Done, GpuCode, GpuInfo, KernelRate, NpyArray, Params, Range } from './port';

/** `array` is left out when the worker has it under this key already. */
export interface Sent {
  key: string;
  array?: NpyArray;
}

export type Ask =
  | { do: 'info' }
  | { do: 'run'; kernel: string; params: Params; inputs: Record<string, Sent>; units: Range }
  | { do: 'selfTest' }
  | { do: 'rates' };

export type ToWorker =
  | { id: number; ask: Ask }
  | { abort: number }
  | { share: number }
  | { hold: boolean }
  | { drop: string[] };

export type Answer = GpuInfo | Done | Check[] | KernelRate[];

export type FromWorker =
  | { id: number; done: Answer }
  | { id: number; failed: { code: GpuCode; message: string; remedy: string } }
  | { id: number; fraction: number }
  | { id: number; check: Check }
  | { utilisation: number };
