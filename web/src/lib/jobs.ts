// SPDX-License-Identifier: Apache-2.0
import type { Schemas } from './api/client';
import type { Meta } from './npy';

const TONES: Record<string, string> = {
  settled: 'good',
  resolved: 'good',
  delivered: 'good',
  failed: 'bad',
  disputed: 'warn',
  queued: 'warn',
  running: 'info',
  assigned: 'info',
  verifying: 'info',
};
const ENDED = new Set(['settled', 'resolved', 'failed', 'cancelled']);

export const jobTone = (state: string): string => TONES[state] ?? '';
export const ended = (job: Schemas['JobView']): boolean => ENDED.has(job.state);
const ATTEMPT_TONES: Record<string, string> = { running: 'info', verifying: 'info', offered: 'warn', delivered: 'warn', accepted: 'good', rejected: 'bad' };
export const attemptTone = (state: string): string => ATTEMPT_TONES[state] ?? '';
/** On a device now. */
export const working = (attempt: Schemas['AttemptView']): boolean => attempt.state === 'running';
/** There may be a result to read. */
export const readable = (job: Schemas['JobView']): boolean =>
  (ended(job) || job.state === 'delivered' || job.state === 'disputed') && job.units_accepted > 0;

/** What a kernel is, as `GET /kernels` tells it. */
export interface Kernel {
  name: string;
  title: string;
  doc: string;
  params: { name: string; kind: string; doc: string; default: unknown; low: number | null; high: number | null; choices: unknown[] }[];
  inputs: { name: string; dims: string[]; dtypes: string[]; doc: string; size_max: number }[];
  outputs: { name: string; dims: string[]; dtypes: string[]; doc: string }[];
  backends: string[];
  open: boolean;
  verifier: boolean;
}

/** An array for a job; `digest` is empty while it is read. */
export interface JobInput {
  file: Blob;
  meta: Meta | null;
  digest: string;
  sent: number;
}
