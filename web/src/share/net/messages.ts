// SPDX-License-Identifier: Apache-2.0
/**
 * The statements of `qubix_protocol.messages` that a tab makes and reads. Those that it makes have every field, in the
 * order of the Python struct, so that both sides encode the same bytes.
 */

import { Refusal } from './envelope';
import { Float, type Decoded, type Fields, type Value } from './msgpack';
import type { Check } from '../gpu/port';
import type { Bytes } from './bytes';

export type Availability = 'available' | 'busy' | 'draining' | 'offline';
export type Outcome = 'completed' | 'failed' | 'cancelled';
export interface Range {
  start: number;
  stop: number;
}
export interface Link {
  index: number;
  units: Range;
  outputDigest: Bytes;
  outputBytes: number;
  claimedMs: number;
  predecessor: Bytes;
}
export interface InputRef {
  name: string;
  digest: Bytes;
  sizeBytes: number;
  dtype: string;
  shape: number[];
}
export interface Assign {
  jobId: string;
  attemptId: string;
  fence: number;
  deviceId: string;
  backend: string;
  kernel: string;
  kernelVersion: number;
  /** As they came: floats are `Float`. */
  params: { [name: string]: Decoded };
  inputs: InputRef[];
  unitsTotal: number;
  ranges: Range[];
  chunkUnits: number;
  timeLimitMs: number;
  rateQuPerH: number;
  rental: string | null;
}
export interface Host {
  system: string;
  cpuModel: string;
  cpuCores: number;
  memoryBytes: number;
  agent: string;
}
export interface LiveAttempt {
  attemptId: string;
  fence: number;
  running: boolean;
}
export interface Device {
  deviceId: string;
  model: string;
  memoryBytes: number;
  driver: string;
  backends: string[];
  fallback: boolean;
}
export interface KernelRate {
  kernel: string;
  backend: string;
  flopsPerS: number;
  bytesPerS: number;
  overheadS: number;
}
export interface Offer {
  device: Device;
  rateQuPerH: number;
  region: string;
  availability: Availability;
  rates: KernelRate[];
  cpuCores: number;
  country: string;
}
export interface Welcome {
  incarnation: number;
  accountId: string;
  clockMs: number;
  heartbeatS: number;
  offerS: number;
  artifactUrl: string;
  certificate: Bytes;
}
export interface Settlement {
  provider: string;
  jobId: string;
  attemptId: string;
  verdict: string;
  paidQu: number;
  unitsAccepted: number;
  unitsTotal: number;
  decidedMs: number;
}
/** In the order in which a node's attempts were settled. */
export interface Place {
  atMs: number;
  id: string;
}
export const BEGINNING: Place = { atMs: 0, id: '' };
export type Command =
  | { t: 'assign'; assign: Assign }
  | { t: 'cancel'; attemptId: string; fence: number; reason: string }
  | { t: 'acknowledged'; attemptId: string; fence: number; link: number | null }
  | { t: 'settlement'; settlement: Settlement }
  | { t: 'settlements'; told: Bytes[]; next: Place; more: boolean }
  | { t: 'renewal'; certificate: Bytes }
  | { t: 'refused'; code: string; detail: string; remedy: string }
  | { t: 'other'; name: string };

// What a tab says -----------------------------------------------------------------------------------------------------


/** Where no gateway stands between, TLS alone hides what is said. */
export const NO_EXCHANGE = new Uint8Array(32);

export function hello(nonce: Bytes, clockMs: number, host: Host, attempts: LiveAttempt[], region: string): Fields {
  return {
    t: 'hello',
    nonce,
    exchange: NO_EXCHANGE,
    clock_ms: clockMs,
    host: {
      system: host.system,
      cpu_model: host.cpuModel,
      cpu_cores: host.cpuCores,
      memory_bytes: host.memoryBytes,
      agent: host.agent,
    },
    attempts: attempts.map((one) => ({ attempt_id: one.attemptId, fence: one.fence, running: one.running })),
    rentals: [],
    region,
  };
}

export interface Beat {
  attemptId: string;
  fence: number;
  fraction: number;
  elapsedMs: number;
}

const beat = (one: Beat): Fields => ({
  attempt_id: one.attemptId,
  fence: one.fence,
  fraction: new Float(one.fraction),
  elapsed_ms: one.elapsedMs,
});

export const heartbeat = (attempts: Beat[]): Fields => ({ t: 'heartbeat', attempts: attempts.map(beat) });
export const accept = (assign: Assign): Fields => ({ t: 'accept', attempt_id: assign.attemptId, fence: assign.fence });
export const decline = (assign: Assign, reason: string): Fields => ({
  t: 'decline',
  attempt_id: assign.attemptId,
  fence: assign.fence,
  reason,
  detail: '',
});

const range = ({ start, stop }: Range): Fields => ({ start, stop });

/** Also what the chain's digest is of. */
export const link = (one: Link): Fields => ({
  index: one.index,
  units: range(one.units),
  output_digest: one.outputDigest,
  output_bytes: one.outputBytes,
  claimed_ms: one.claimedMs,
  predecessor: one.predecessor,
});

export const progress = (at: Beat, made: Link | null): Fields => ({
  t: 'progress',
  ...beat(at),
  link: made ? link(made) : null,
});

export interface Report {
  assign: Assign;
  outcome: Outcome;
  paramsDigest: Bytes;
  inputsDigest: Bytes;
  links: number;
  unitsDone: number;
  head: Bytes;
  claimedMs: number;
  startedMs: number;
  finishedMs: number;
  failure: { code: string; detail: string } | null;
}

export const report = (one: Report): Fields => ({
  t: 'report',
  job_id: one.assign.jobId,
  attempt_id: one.assign.attemptId,
  fence: one.assign.fence,
  outcome: one.outcome,
  kernel: one.assign.kernel,
  params_digest: one.paramsDigest,
  inputs_digest: one.inputsDigest,
  links: one.links,
  units_done: one.unitsDone,
  head: one.head,
  claimed_ms: one.claimedMs,
  started_ms: one.startedMs,
  finished_ms: one.finishedMs,
  backend: one.assign.backend,
  device_id: one.assign.deviceId,
  failure: one.failure
    ? { code: one.failure.code.slice(0, 200), detail: one.failure.detail.replaceAll('\0', '').slice(0, 1000) }
    : null,
});

export const offer = (one: Offer): Fields => ({
  t: 'offer',
  device: {
    device_id: one.device.deviceId,
    kind: 'webgpu',
    model: one.device.model,
    memory_bytes: one.device.memoryBytes,
    cores: 0,
    driver: one.device.driver,
    cuda: '',
    compute_capability: '',
    backends: one.device.backends,
    fallback: one.device.fallback,
  },
  rate_qu_per_h: one.rateQuPerH,
  region: one.region,
  availability: one.availability,
  rates: one.rates.map((rate) => ({
    kernel: rate.kernel,
    backend: rate.backend,
    flops_per_s: new Float(rate.flopsPerS),
    bytes_per_s: new Float(rate.bytesPerS),
    overhead_s: new Float(rate.overheadS),
  })),
  metrics: null,
  jobs_parallel: 1,
  isolation: 'limited',
  cpu_cores: one.cpuCores,
  cpu_memory_bytes: 0,
  disk_free_bytes: 0,
  inet_down_bytes_per_s: 0,
  inet_up_bytes_per_s: 0,
  notice_s: 0,
  country: one.country,
  relays_at: [],
});

/** Nothing but what a tab can look at is in it, and all of that is. */
export const selfTest = (testId: string, deviceId: string, atMs: number, tookMs: number, checks: Check[]): Fields => ({
  t: 'selftest',
  test_id: testId,
  device_id: deviceId,
  at_ms: atMs,
  took_ms: tookMs,
  quick: false,
  full: true,
  checks: checks.slice(0, 64).map((one) => ({
    id: one.id,
    title: one.title.slice(0, 200),
    status: one.status,
    actual: one.actual.slice(0, 200),
    required: one.required.slice(0, 200),
    unit: one.unit.slice(0, 20),
    purpose: one.purpose.slice(0, 2000),
    remedy: one.remedy.slice(0, 2000),
  })),
});

export const artifactRequest = (
  method: 'GET' | 'HEAD' | 'PUT',
  digest: Bytes,
  sizeBytes: number,
  attempt: { attemptId: string; fence: number },
): Fields => ({
  t: 'artifact_request',
  method,
  digest,
  size_bytes: sizeBytes,
  attempt_id: attempt.attemptId,
  fence: attempt.fence,
});

/** The last word of a session, signed before it is needed. */
export const leaving = (): Fields => ({ t: 'leaving' });
export const settlementsAsk = (after: Place): Fields => ({ t: 'settlements_ask', after_ms: after.atMs, after: after.id });

export const refused = (code: string, detail: string): Fields => ({
  t: 'refused',
  code,
  detail: detail.slice(0, 500),
  remedy: '',
});

// What the coordinator says -------------------------------------------------------------------------------------------

type Body = { [name: string]: Decoded };

/** Reads fields of one statement, or throws Refusal("malformed"). */
class Said {
  readonly #body: Body;
  constructor(body: Decoded | undefined) {
    if (typeof body !== 'object' || body === null || Object.getPrototypeOf(body) !== null) throw wrong('a part');
    this.#body = body as Body;
  }

  text(name: string): string {
    const value = this.#body[name];
    if (typeof value !== 'string') throw wrong(name);
    return value;
  }

  count(name: string): number {
    const value = this.#body[name];
    if (typeof value !== 'number' || value < 0) throw wrong(name);
    return value;
  }

  number(name: string): number {
    const value = this.#body[name];
    if (value instanceof Float) return value.value;
    return this.count(name);
  }

  digest(name: string): Bytes {
    const value = this.bytes(name);
    if (value.length !== 32) throw wrong(name);
    return value;
  }

  bytes(name: string): Bytes {
    const value = this.#body[name];
    if (!(value instanceof Uint8Array)) throw wrong(name);
    return value;
  }

  list<T>(name: string, read: (one: Decoded) => T): T[] {
    const value = this.#body[name];
    if (!Array.isArray(value)) throw wrong(name);
    return value.map(read);
  }

  part(name: string): Said {
    return new Said(this.#body[name]);
  }

  flag(name: string): boolean {
    const value = this.#body[name];
    if (typeof value !== 'boolean') throw wrong(name);
    return value;
  }

  isNull(name: string): boolean {
    return this.#body[name] === null;
  }

  map(name: string): Body {
    const value = this.#body[name];
    new Said(value);
    return value as Body;
  }
}

const wrong = (name: string): Refusal => new Refusal('malformed', `${name} has another type`);

export function challengeOf(body: Body): { nonce: Bytes; clockMs: number } {
  const said = new Said(body);
  return { nonce: said.digest('nonce'), clockMs: said.count('clock_ms') };
}

export function welcomeOf(body: Body): Welcome {
  const said = new Said(body);
  return {
    incarnation: said.count('incarnation'),
    accountId: said.text('account_id'),
    clockMs: said.count('clock_ms'),
    heartbeatS: said.number('heartbeat_s'),
    offerS: said.number('offer_s'),
    artifactUrl: said.text('artifact_url'),
    certificate: said.bytes('certificate'),
  };
}

/** The region that a certificate is for, by its body. */
export const regionOf = (body: Body): string => new Said(body).text('region');

/** Throws Refusal for a statement that is not of its form. */
export function commandOf(type: string, body: Body): Command {
  const said = new Said(body);
  const attempt = (): { attemptId: string; fence: number } => ({
    attemptId: said.text('attempt_id'),
    fence: said.count('fence'),
  });
  switch (type) {
    case 'assign':
      return { t: 'assign', assign: assignOf(body) };
    case 'cancel':
      return { t: 'cancel', ...attempt(), reason: said.text('reason') };
    case 'acknowledged':
      return { t: 'acknowledged', ...attempt(), link: said.isNull('link') ? null : said.count('link') };
    case 'settlement':
      return { t: 'settlement', settlement: settlementOf(body) };
    case 'settlements': {
      const next = { atMs: said.count('next_ms'), id: said.text('next') };
      return { t: 'settlements', told: said.list('told', bytesOf), next, more: said.flag('more') };
    }
    case 'renewal':
      return { t: 'renewal', certificate: said.bytes('certificate') };
    case 'refused':
      return { t: 'refused', code: said.text('code'), detail: said.text('detail'), remedy: said.text('remedy') };
    default:
      return { t: 'other', name: type };
  }
}

export function assignOf(body: Body): Assign {
  const said = new Said(body);
  return {
    jobId: said.text('job_id'),
    attemptId: said.text('attempt_id'),
    fence: said.count('fence'),
    deviceId: said.text('device_id'),
    backend: said.text('backend'),
    kernel: said.text('kernel'),
    kernelVersion: said.count('kernel_version'),
    params: said.map('params'),
    inputs: said.list('inputs', inputOf),
    unitsTotal: said.count('units_total'),
    ranges: said.list('ranges', rangeOf),
    chunkUnits: said.count('chunk_units'),
    timeLimitMs: said.count('time_limit_ms'),
    rateQuPerH: said.count('rate_qu_per_h'),
    rental: said.isNull('rental') ? null : said.text('rental'),
  };
}

function rangeOf(value: Decoded): Range {
  const said = new Said(value);
  return { start: said.count('start'), stop: said.count('stop') };
}

function inputOf(value: Decoded): InputRef {
  const said = new Said(value);
  const meta = said.part('meta');
  const shape = meta.list('shape', (size) => {
    if (typeof size !== 'number') throw wrong('shape');
    return size;
  });
  return {
    name: said.text('name'),
    digest: said.digest('digest'),
    sizeBytes: said.count('size_bytes'),
    dtype: meta.text('dtype'),
    shape,
  };
}

function bytesOf(value: Decoded): Bytes {
  if (!(value instanceof Uint8Array)) throw wrong('a part');
  return value;
}

export function settlementOf(body: Body): Settlement {
  const said = new Said(body);
  return {
    provider: said.text('provider'),
    jobId: said.text('job_id'),
    attemptId: said.text('attempt_id'),
    verdict: said.text('verdict'),
    paidQu: said.count('paid_qu'),
    unitsAccepted: said.count('units_accepted'),
    unitsTotal: said.count('units_total'),
    decidedMs: said.count('decided_ms'),
  };
}

export const inputFields = (one: InputRef): Fields => ({
  name: one.name,
  digest: one.digest,
  size_bytes: one.sizeBytes,
  meta: { dtype: one.dtype, shape: one.shape } as { [name: string]: Value },
});
