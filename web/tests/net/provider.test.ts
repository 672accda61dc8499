// SPDX-License-Identifier: Apache-2.0
/** How a start ends that cannot come to a session: each in words of its own, with the lock given back. */

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Gpu, GpuInfo } from '../../src/share/gpu/port';
import { GpuError } from '../../src/share/gpu/port';
import { NoStorage } from '../../src/share/net/idb';
import { MemoryJournal, type Journal } from '../../src/share/net/journal';
import { Provider, type ProviderState } from '../../src/share/net/provider';
import { PageTicker } from '../../src/share/net/ticker';

const KEY = 'ab'.repeat(32);
const VIEW = { network: 'devnet', coordinator_key: KEY, protocol_version: 1, fallback_adapters: false };
const SETTINGS = { rateQuPerHour: 100, throttle: 1 };

function gpu(info: () => Promise<Partial<GpuInfo>>): Gpu {
  return { info, setShare: () => undefined } as unknown as Gpu;
}

interface World {
  provider: Provider;
  state: () => ProviderState;
  /** How often the lock was taken, and given back. */
  lock: { taken: number; released: number };
}

function world(changes: {
  view?: object | null;
  info?: () => Promise<Partial<GpuInfo>>;
  journal?: () => Promise<Journal>;
  locked?: boolean;
}): World {
  const lock = { taken: 0, released: 0 };
  const provider = new Provider(gpu(changes.info ?? (async () => ({ model: 'A GPU', fallback: false }))), SETTINGS, {
    origin: 'http://here',
    journal: changes.journal ?? (async () => new MemoryJournal()),
    ticker: new PageTicker(),
    fetch: (async () => {
      if (changes.view === null) throw new TypeError('no connection');
      return Response.json({ ...VIEW, ...changes.view });
    }) as unknown as typeof fetch,
    leaving: () => () => undefined,
    lock: async () => {
      if (changes.locked) return null;
      lock.taken += 1;
      return () => (lock.released += 1);
    },
  });
  let now: ProviderState | null = null;
  provider.state.subscribe((state) => (now = state));
  return {
    provider,
    lock,
    state: () => {
      assert.ok(now);
      return now;
    },
  };
}

async function elsewhere(): Promise<Journal> {
  const journal = new MemoryJournal();
  await journal.setMarket({ network: 'devnet', coordinatorKey: 'cd'.repeat(32) });
  return journal;
}

const CASES: [string, Parameters<typeof world>[0]][] = [
  ['other_tab', { locked: true }],
  ['no_storage', { journal: () => Promise.reject(new NoStorage('a private window')) }],
  ['other_market', { journal: elsewhere }],
  ['other_market', { view: { protocol_version: 2 } }],
  ['fallback_adapter', { info: async () => ({ model: 'SwiftShader', fallback: true }) }],
  ['gpu', { info: () => Promise.reject(new GpuError('no_adapter', 'There is none.', 'Look for one.')) }],
];

describe('a start that ends', () => {
  CASES.forEach(([code, changes], at) => {
    test(`${at}: ${code}`, async () => {
      const { provider, state, lock } = world(changes);
      await provider.start();
      assert.deepEqual([state().phase, state().problem?.code], ['off', code]);
      assert.equal(lock.released, lock.taken);
    });
  });

  test('is stopped while the market does not answer', { timeout: 10_000 }, async () => {
    const { provider, state, lock } = world({ view: null });
    const started = provider.start();
    while (!state().problem) await new Promise((resolve) => setTimeout(resolve, 1));
    assert.deepEqual([state().phase, state().problem?.code], ['connecting', 'unreachable']);
    await provider.stop();
    await started;
    assert.equal(state().phase, 'off');
    assert.deepEqual(lock, { taken: 1, released: 1 });
  });

  test('has its peer id all the same, and the same one again', async () => {
    const journal = new MemoryJournal();
    const first = world({ view: { protocol_version: 2 }, journal: async () => journal });
    await first.provider.start();
    assert.match(first.state().peerId, /^12D3KooW/);
    const second = world({ view: { protocol_version: 2 }, journal: async () => journal });
    await second.provider.start();
    assert.equal(second.state().peerId, first.state().peerId);
  });
});
