// SPDX-License-Identifier: Apache-2.0
/** What the market says of itself to everybody, asked once. */

import { get, type Schemas } from './api/client';

let asked: Promise<Schemas['NetworkView']> | null = null;

export function network(): Promise<Schemas['NetworkView']> {
  asked ??= get<Schemas['NetworkView']>('/network').catch((problem: unknown) => {
    asked = null;
    throw problem;
  });
  return asked;
}
