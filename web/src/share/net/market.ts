// SPDX-License-Identifier: Apache-2.0
/** First contact: which market this page is of, and whether it is the one that this browser knew. */

import { unhex, type Bytes } from './bytes';
import { VERSION } from './envelope';
import type { Journal } from './journal';
import type { ProblemCode } from './types';

export interface Found {
  network: string;
  coordinator: Bytes;
  fallbackAdapters: boolean;
}

/** What keeps the tab from sharing. */
export class CannotShare extends Error {
  readonly code: ProblemCode;
  constructor(code: ProblemCode, detail: string) {
    super(detail);
    this.code = code;
  }
}

interface View {
  network: string;
  coordinator_key: string;
  protocol_version: number;
  fallback_adapters: boolean;
}

/** Pins the coordinator's key at the first contact. Throws CannotShare: `unreachable` may pass. */
export async function findMarket(origin: string, journal: Journal, fetcher: typeof fetch): Promise<Found> {
  const view = await asked(origin, fetcher);
  if (view.protocol_version !== VERSION) {
    throw new CannotShare('other_market', `the market speaks protocol ${view.protocol_version}, this page ${VERSION}`);
  }
  const here = { network: view.network, coordinatorKey: view.coordinator_key };
  const known = await journal.market();
  if (known && (known.network !== here.network || known.coordinatorKey !== here.coordinatorKey)) {
    throw new CannotShare('other_market', `this browser shared with ${known.coordinatorKey.slice(0, 16)}… before`);
  }
  if (!known) await journal.setMarket(here);
  return {
    network: view.network,
    coordinator: unhex(view.coordinator_key),
    fallbackAdapters: view.fallback_adapters,
  };
}

async function asked(origin: string, fetcher: typeof fetch): Promise<View> {
  try {
    const answer = await fetcher(`${origin}/api/v1/network`, { headers: { Accept: 'application/json' } });
    if (!answer.ok) throw new Error(`HTTP status ${answer.status}`);
    return (await answer.json()) as View;
  } catch (problem) {
    throw new CannotShare('unreachable', String(problem));
  }
}
