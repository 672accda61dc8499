// SPDX-License-Identifier: Apache-2.0
/** What went wrong, as the page is told of it. */

import { GpuError } from '../gpu/port';
import { NoStorage } from './idb';
import { NoKey } from './keys';
import { CannotShare } from './market';
import type { Problem } from './types';

export function problemOf(problem: unknown): Problem {
  if (problem instanceof CannotShare) return { code: problem.code, detail: problem.message };
  if (problem instanceof NoKey) return { code: 'no_key', detail: problem.message };
  if (problem instanceof NoStorage) return { code: 'no_storage', detail: problem.message };
  if (problem instanceof GpuError) return { code: 'gpu', detail: [problem.message, problem.remedy].filter(Boolean).join(' ') };
  return { code: 'internal', detail: String(problem) };
}
