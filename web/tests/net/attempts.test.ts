// SPDX-License-Identifier: Apache-2.0
/** What becomes of attempts: every phase and event, admission, chunks, what is said again, and what a reload finds. */

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Done, Gpu, GpuInfo } from '../../src/share/gpu/port';
import { GpuError } from '../../src/share/gpu/port';
import { hex, sha256, unhex, type Bytes } from '../../src/share/net/bytes';
import { Desk, type Surroundings } from '../../src/share/net/desk';
import { NoStorage } from '../../src/share/net/idb';
import { MemoryJournal, type Saved } from '../../src/share/net/journal';
import type { Assign, Range } from '../../src/share/net/messages';
import { decode, encode, Float, type Decoded, type Fields } from '../../src/share/net/msgpack';
import { Outbox, RESEND_MS, SENDS_MAX } from '../../src/share/net/outbox';
import * as rules from '../../src/share/net/rules';
import { Runner } from '../../src/share/net/runner';
import { Store } from '../../src/share/net/store';
import { PageTicker } from '../../src/share/net/ticker';

type Body = { [name: string]: Decoded };
const ATTEMPT = '00000002-0000-4000-8000-000000000001';
const RUNNING: rules.Attempt = { ...rules.NEW, phase: 'running', fence: 3, deadlineMs: 1_000 };

const EVENTS: rules.Event[] = [
  { t: 'assigned', fence: 3, timeLimitMs: 1_000, obstacle: '' },
  { t: 'cancelled', fence: 3 },
  { t: 'ended', verdict: rules.COMPLETED },
  { t: 'ticked' },
  { t: 'quitting' },
  { t: 'report_acknowledged' },
  { t: 'settled' },
  { t: 'unanswered' },
];
/** By phase, the actions on each of the events, before the deadline. */
const TABLE: Record<rules.Phase, string[]> = {
  unknown: ['accept start', '', '', '', '', '', '', ''],
  running: ['accept', 'kill', 'report', '', 'kill', '', 'kill', 'kill'],
  stopping: ['', '', 'report', '', '', '', '', ''],
  reported: ['resend', 'resend', '', '', '', 'forget', 'forget', 'forget'],
  forgotten: ['decline', '', '', '', '', '', '', ''],
};

describe('the table of attempts', () => {
  for (const [phase, wanted] of Object.entries(TABLE)) {
    EVENTS.forEach((event, at) => {
      test(`${phase} × ${event.t}`, () => {
        const before = { ...RUNNING, phase: phase as rules.Phase };
        assert.equal(rules.decide(before, event, 0).actions.join(' '), wanted[at]);
      });
    });
  }

  test('what it was told to stop for is what is reported', () => {
    const cancelled = rules.decide(RUNNING, { t: 'cancelled', fence: 3 }, 0).attempt;
    const ended = rules.decide(cancelled, { t: 'ended', verdict: rules.failed('stopped', '') }, 0);
    assert.equal(ended.attempt.verdict?.outcome, 'cancelled');
  });

  test('the time limit ends it', () => {
    const over = rules.decide(RUNNING, { t: 'ticked' }, 1_000);
    assert.deepEqual([over.actions, over.attempt.verdict?.code], [['kill'], 'overdue']);
  });

  test('a cancel of an earlier fence, and an assignment of a later one', () => {
    assert.deepEqual(rules.decide(RUNNING, { t: 'cancelled', fence: 2 }, 0).actions, []);
    const later = rules.decide(RUNNING, { t: 'assigned', fence: 4, timeLimitMs: 1, obstacle: '' }, 0);
    assert.deepEqual([later.actions, later.reason], [['decline'], 'fence_conflict']);
  });
});

const INPUT = unhex(
  // np.float32([[1, 2], [3, 4]]) as numpy.save writes it
  '934e554d5059010076007b276465736372273a20273c6634272c2027666f727472616e5f6f72646572273a2046616c73652c20277368617065273a2028322c2032292c207d' +
    '20'.repeat(59) +
    '0a' +
    '0000803f000000400000404000008040',
);

async function body(changes: Body = {}): Promise<Body> {
  const digest = await sha256(INPUT);
  const input = { name: 'a', digest, size_bytes: INPUT.length, meta: { dtype: 'float32', shape: [2, 2] } };
  const plain: Fields = {
    t: 'assign',
    job_id: '00000001-0000-4000-8000-000000000001',
    attempt_id: ATTEMPT,
    fence: 3,
    device_id: 'webgpu-1',
    backend: 'webgpu',
    kernel: 'matmul',
    kernel_version: 1,
    params: { scale: new Float(2) },
    inputs: [input],
    units_total: 10,
    ranges: [
      { start: 0, stop: 4 },
      { start: 6, stop: 10 },
    ],
    chunk_units: 2,
    time_limit_ms: 60_000,
    rate_qu_per_h: 100,
    offer_digest: new Uint8Array(32),
    rental: null,
  };
  return decode(encode({ ...plain, ...(changes as Fields) })) as Body;
}

/** Doubles its input; `broken` makes it fail, `held` wait until it is aborted. */
class FakeGpu implements Gpu {
  ran: Range[] = [];
  broken: GpuError | null = null;
  held = false;

  info(): Promise<GpuInfo> {
    return Promise.reject(new Error('not asked'));
  }
  async run(kernel: string, params: object, inputs: object, units: Range, signal: AbortSignal): Promise<Done> {
    if (this.broken) throw this.broken;
    this.ran.push(units);
    if (this.held) await new Promise((_, reject) => signal.addEventListener('abort', () => reject(new GpuError('aborted', ''))));
    const data = Float32Array.of(units.start, units.stop).buffer;
    void [kernel, params, inputs];
    return { outputs: { c: { dtype: 'float32', shape: [2], data } }, ms: 1_000 };
  }
  selfTest(): Promise<never[]> {
    return Promise.resolve([]);
  }
  rates(): Promise<never[]> {
    return Promise.resolve([]);
  }
  setShare(): void {}
  hold(): void {}
  utilisation(): number {
    return 0;
  }
  close(): void {}
}

/** One tab, as far as its attempts go; a second one on the same journal is the same tab, loaded again. */
class World {
  readonly said: Fields[] = [];
  readonly stored = new Map<string, Bytes>();
  readonly outbox = new Outbox();
  readonly gpu: FakeGpu;
  readonly journal: MemoryJournal;
  readonly desk: Desk;
  readonly full: string[] = [];
  draining = false;

  constructor(journal = new MemoryJournal(), gpu = new FakeGpu()) {
    this.journal = journal;
    this.gpu = gpu;
    const ticker = new PageTicker();
    const fetcher = (async (url: string, how: RequestInit) => {
      const digest = url.slice(-64);
      if (how.method === 'GET') return new Response(INPUT, { status: 200 });
      this.stored.set(digest, how.body as Bytes);
      return new Response('{}', { status: 201 });
    }) as unknown as typeof fetch;
    const store = new Store(async () => ({ url: 'http://here/artifacts', token: new Uint8Array(1) }), ticker, fetcher);
    const around: Surroundings = {
      facts: () => ({ deviceId: 'webgpu-1', kernels: ['matmul'], rateQuPerH: 100, draining: this.draining }),
      say: (message) => this.said.push(message),
      kept: () => undefined,
      changed: () => undefined,
      full: (problem) => this.full.push(problem.message),
    };
    this.desk = new Desk(journal, this.outbox, new Runner(gpu, store, journal, this.outbox, ticker), ticker, around);
  }

  async assign(changes: Body = {}): Promise<void> {
    const said = await body(changes);
    const assign = { ...(await assigned(said)) };
    await this.desk.command({ t: 'assign', assign }, said);
  }

  /** What waits to be acknowledged, once `count` statements of it are there. */
  async kept(count: number): Promise<Fields[]> {
    const found: Fields[] = [];
    const end = performance.now() + 10_000;
    while (found.length < count) {
      found.push(...this.outbox.due(0).messages);
      assert.ok(performance.now() < end, `${found.length} of ${count} came`);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return found;
  }
}

async function assigned(said: Body): Promise<Assign> {
  const { assignOf } = await import('../../src/share/net/messages');
  return assignOf(said);
}

describe('one attempt', () => {
  test('is accepted, computed in chunks, sent and reported', async () => {
    const world = new World();
    await world.assign();
    assert.deepEqual(world.said.map((one) => one['t']), ['accept']);
    const kept = await world.kept(5);
    assert.deepEqual(kept.map((one) => one['t']), ['progress', 'progress', 'progress', 'progress', 'report']);
    assert.deepEqual(world.gpu.ran, [
      { start: 0, stop: 2 },
      { start: 2, stop: 4 },
      { start: 6, stop: 8 },
      { start: 8, stop: 10 },
    ]);
    const report = kept[4] as { units_done: number; links: number; outcome: string; claimed_ms: number };
    assert.deepEqual([report.units_done, report.links, report.outcome, report.claimed_ms], [8, 4, 'completed', 4_000]);
    for (const one of kept.slice(0, 4)) {
      const link = one['link'] as { output_digest: Bytes; output_bytes: number };
      assert.equal(world.stored.get(hex(link.output_digest))?.length, link.output_bytes);
    }
    await world.desk.command({ t: 'acknowledged', attemptId: ATTEMPT, fence: 3, link: null }, {});
    assert.equal(world.desk.idle, true);
    assert.deepEqual(await world.journal.attempts(), []);
    await world.assign();
    assert.deepEqual(world.said.map((one) => one['reason']).slice(1), ['already_done']);
  });

  test('goes on behind its last link after a reload', async () => {
    const first = new World();
    first.gpu.held = false;
    await first.assign();
    await first.kept(2);
    first.desk.abandon();
    const [saved] = await first.journal.attempts();
    assert.ok(saved);
    saved.links = saved.links.slice(0, 2);
    saved.report = null;
    saved.acknowledged = [0];
    // One unit more was on its way.
    saved.sending = { units: { start: 6, stop: 7 }, content: INPUT, ms: 5 };
    await first.journal.save(saved);
    const second = new World(first.journal);
    await second.desk.restore();
    assert.deepEqual(second.desk.liveAttempts(), [{ attemptId: ATTEMPT, fence: 3, running: true }]);
    const kept = await second.kept(5);
    assert.deepEqual(second.gpu.ran.map((one) => [one.start, one.stop]), [[7, 9], [9, 10]]);
    assert.deepEqual(kept.map((one) => (one['link'] as { index: number } | undefined)?.index), [1, 2, 3, 4, undefined]);
    assert.equal(kept[4]?.['units_done'], 8);
    assert.equal(second.stored.size, 3);
  });

  test('is cancelled, and says so', async () => {
    const world = new World();
    world.gpu.held = true;
    await world.assign();
    await world.desk.command({ t: 'cancel', attemptId: ATTEMPT, fence: 3, reason: 'superseded' }, {});
    const [report] = await world.kept(1);
    assert.deepEqual([report?.['outcome'], report?.['failure']], ['cancelled', null]);
  });

  test('is handed back by a tab that stops', async () => {
    const world = new World();
    world.gpu.held = true;
    await world.assign();
    world.draining = true;
    const leaving = world.desk.drain(AbortSignal.timeout(10_000));
    const [report] = await world.kept(1);
    assert.equal((report?.['failure'] as { code: string }).code, 'node_stopped');
    await world.desk.command({ t: 'acknowledged', attemptId: ATTEMPT, fence: 3, link: null }, {});
    await leaving;
    await world.assign({ attempt_id: '00000009-0000-4000-8000-000000000001' });
    assert.equal(world.said.at(-1)?.['reason'], 'draining');
  });

  test('fails with its card', async () => {
    const world = new World();
    world.gpu.broken = new GpuError('device_lost', 'it is gone');
    await world.assign();
    const [report] = await world.kept(1);
    assert.deepEqual(report?.['failure'], { code: 'device_lost', detail: 'it is gone' });
  });
});

const OBSTACLES: [string, Body][] = [
  ['unknown_device', { device_id: 'webgpu-2' }],
  ['not_rented', { rental: '00000003-0000-4000-8000-000000000001' }],
  ['unknown_kernel', { kernel: 'onnx' }],
  ['kernel_version', { kernel_version: 2 }],
  ['backend', { backend: 'cpu' }],
  ['price', { rate_qu_per_h: 99 }],
  ['bad_ranges', { units_total: 9 }],
  ['bad_ranges', { ranges: [] }],
];

describe('declined', () => {
  for (const [reason, changes] of OBSTACLES) {
    test(reason, async () => {
      const world = new World();
      await world.assign(changes);
      assert.deepEqual(world.said.map((one) => [one['t'], one['reason']]), [['decline', reason]]);
      assert.deepEqual(world.gpu.ran, []);
    });
  }

  test('busy', async () => {
    const world = new World();
    world.gpu.held = true;
    await world.assign();
    await world.assign({ attempt_id: '00000009-0000-4000-8000-000000000001' });
    assert.deepEqual(world.said.map((one) => one['reason'] ?? one['t']), ['accept', 'busy']);
    world.desk.abandon();
  });
});

/** As a browser whose disk is full: what is there stays, and nothing more is kept. */
class FullJournal extends MemoryJournal {
  room = Infinity;

  override async save(attempt: Saved): Promise<void> {
    if ((this.room -= 1) < 0) throw new NoStorage('QuotaExceededError');
    await super.save(attempt);
  }
}

describe('without room', () => {
  test('a job is declined, and the next one taken once there is some', async () => {
    const journal = new FullJournal();
    const world = new World(journal);
    journal.room = 0;
    await world.assign();
    assert.deepEqual(world.said.map((one) => [one['t'], one['reason']]), [['decline', 'disk']]);
    assert.deepEqual([world.desk.idle, world.gpu.ran, world.full], [true, [], ['QuotaExceededError']]);
    journal.room = Infinity;
    await world.assign();
    assert.equal((await world.kept(5)).at(-1)?.['outcome'], 'completed');
  });

  test('a job that no longer fits ends, and the market hears of it', async () => {
    const journal = new FullJournal();
    const world = new World(journal);
    journal.room = 1;
    await world.assign();
    const [report] = await world.kept(1);
    assert.equal((report?.['failure'] as { code: string }).code, 'disk');
    assert.equal(report?.['units_done'], 0);
    await world.desk.command({ t: 'acknowledged', attemptId: ATTEMPT, fence: 3, link: null }, {});
    assert.equal(world.desk.idle, true);
  });

  test('a job that is done is reported', async () => {
    const journal = new FullJournal();
    const world = new World(journal);
    // The assignment, and before and after each of four uploads.
    journal.room = 9;
    await world.assign();
    const kept = await world.kept(5);
    assert.deepEqual([kept.at(-1)?.['outcome'], kept.at(-1)?.['links']], ['completed', 4]);
    await world.desk.command({ t: 'acknowledged', attemptId: ATTEMPT, fence: 3, link: 0 }, {});
    assert.ok(world.full.length >= 1);
  });
});

describe('chunks', () => {
  test('what is left of the ranges', () => {
    const ranges = [
      { start: 0, stop: 4 },
      { start: 6, stop: 10 },
    ];
    assert.deepEqual(rules.rest(ranges, 0), ranges);
    assert.deepEqual(rules.rest(ranges, 3), [{ start: 3, stop: 4 }, ranges[1]]);
    assert.deepEqual(rules.rest(ranges, 5), [{ start: 7, stop: 10 }]);
    assert.deepEqual(rules.rest(ranges, 8), []);
  });

  test('never more links than an attempt may have', () => {
    let left: Range[] = [{ start: 0, stop: 1_000_000 }];
    let made = 0;
    for (let next = rules.nextChunk(left, 1, made); next; next = rules.nextChunk(left, 1, made)) {
      left = next.stop < 1_000_000 ? [{ start: next.stop, stop: 1_000_000 }] : [];
      made += 1;
    }
    assert.ok(made <= rules.CHUNKS_MAX);
    assert.deepEqual(left, []);
  });

  test('of about a second', () => {
    assert.equal(rules.paced(10, 10, 500), 20);
    assert.equal(rules.paced(10, 10, 1), 40);
    assert.equal(rules.paced(10, 10, 1e9), 1);
  });
});

describe('the outbox', () => {
  const message = (at: number): Fields => ({ t: 'progress', at });

  test('keeps its order, says again what nobody acknowledges, and gives up in the end', () => {
    const outbox = new Outbox();
    outbox.keep('a', 0, message(0));
    outbox.keep('a', null, message(1));
    assert.deepEqual(outbox.due(0).messages, [message(0), message(1)]);
    assert.deepEqual(outbox.due(RESEND_MS).messages, []);
    assert.equal(outbox.acknowledge('a', 0), true);
    assert.equal(outbox.acknowledge('a', 0), false);
    assert.deepEqual(outbox.due(RESEND_MS + 1).messages, [message(1)]);
    for (let send = 2; send < SENDS_MAX; send += 1) {
      outbox.restart();
      assert.equal(outbox.due(0).messages.length, 1);
    }
    outbox.restart();
    assert.deepEqual(outbox.due(0), { messages: [], unanswered: 'a' });
    outbox.forget('a');
    assert.equal(outbox.size, 0);
  });
});
