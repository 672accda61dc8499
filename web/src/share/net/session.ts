// SPDX-License-Identifier: Apache-2.0
/** One session with the coordinator, without any IO: what is believed, and how statements leave (trust P1, P2). */

import type { Bytes } from './bytes';
import { ANYONE, open, readEvidence, Refusal, ReplayGuard, Sealer, type Opened } from './envelope';
import type { Identity } from './keys';
import { challengeOf, commandOf, leaving, regionOf, settlementOf, welcomeOf, type Command, type Settlement, type Welcome } from './messages';
import { encode, type Fields } from './msgpack';

const PASS_LIFE_MS = 30_000;
const OFFER_LIFE_MS = 60_000;
const CHALLENGE_LIFE_MS_MAX = 120_000;

/** Who speaks to whom: everything else is refused. */
export interface Pins {
  key: Identity;
  network: string;
  coordinator: Bytes;
}
export interface Challenge {
  nonce: Bytes;
  clockMs: number;
}
/** A clock that nobody sets: milliseconds since some moment. */
export type Steady = () => number;

/** Throws Refusal. Its expiry is judged by the clock inside it: no offset is known before the first one. */
export async function believeChallenge(raw: Uint8Array, pins: Pins): Promise<Challenge> {
  const opened = await readEvidence(raw, pins.network, pins.coordinator);
  const challenge = challengeOf(opened.body);
  await open(raw, pins.network, pins.coordinator, pins.key.publicKey, challenge.clockMs);
  if (opened.header.type !== 'challenge') throw new Refusal('out_of_order', `a ${opened.header.type} came first`);
  if (opened.header.expiresMs - challenge.clockMs > CHALLENGE_LIFE_MS_MAX) throw new Refusal('expired', 'too far ahead');
  if (opened.header.incarnation !== 0) throw new Refusal('replayed', 'a challenge of a session');
  return challenge;
}

/** The only statement of incarnation 0, sealed by the clock that the challenge tells. */
export function answer(challenge: Challenge, hello: Fields, pins: Pins): Promise<Bytes> {
  const fixed = { network: pins.network, audience: pins.coordinator, incarnation: 0 };
  return new Sealer(pins.key, fixed, () => challenge.clockMs).seal(hello);
}

export class Session {
  readonly welcome: Welcome;
  region = '';
  readonly #pins: Pins;
  readonly #guard: ReplayGuard;
  readonly #steady: Steady;
  readonly #offsetMs: number;
  readonly #control: Sealer;
  readonly #gossip: Sealer;
  readonly #passes: Sealer;
  #certificate: Bytes = new Uint8Array(0);

  private constructor(welcome: Welcome, pins: Pins, guard: ReplayGuard, steady: Steady) {
    this.welcome = welcome;
    this.#pins = pins;
    this.#guard = guard;
    this.#steady = steady;
    this.#offsetMs = welcome.clockMs - steady();
    this.#control = this.#sealer(pins.coordinator);
    this.#gossip = this.#sealer(ANYONE, OFFER_LIFE_MS);
    this.#passes = this.#sealer(pins.coordinator, PASS_LIFE_MS);
  }

  /** From the frame that should be the welcome. Throws Refusal. The caller refuses a session that is not new. */
  static async begin(raw: Uint8Array, challenge: Challenge, pins: Pins, steady: Steady): Promise<Session> {
    const opened = await open(raw, pins.network, pins.coordinator, pins.key.publicKey, challenge.clockMs);
    if (opened.header.type !== 'welcome') throw new Refusal('out_of_order', `a ${opened.header.type}, no welcome`);
    const welcome = welcomeOf(opened.body);
    const guard = new ReplayGuard(welcome.incarnation);
    guard.check(opened.header);
    const session = new Session(welcome, pins, guard, steady);
    await session.certify(welcome.certificate);
    return session;
  }

  /** The coordinator's word that this tab may offer, and where. Throws Refusal. */
  async certify(certificate: Bytes): Promise<void> {
    const opened = await readEvidence(certificate, this.#pins.network, this.#pins.coordinator);
    if (opened.header.type !== 'certificate' || opened.body['peer_id'] !== this.#pins.key.peerId) {
      throw new Refusal('not_certified', 'the certificate is of another node');
    }
    this.region = regionOf(opened.body);
    this.#certificate = certificate;
  }

  coordinatorMs(): number {
    return Math.round(this.#steady() + this.#offsetMs);
  }

  /** A command of this session, each once, and what was signed. Throws Refusal. */
  async believe(raw: Uint8Array): Promise<{ command: Command; opened: Opened }> {
    const { coordinator, key, network } = this.#pins;
    const opened = await open(raw, network, coordinator, key.publicKey, this.coordinatorMs());
    this.#guard.check(opened.header);
    return { command: commandOf(opened.header.type, opened.body), opened };
  }

  /** A settlement of this tab's own work, as it was signed once. Throws Refusal. */
  async settlement(raw: Uint8Array): Promise<Settlement> {
    const { header, body } = await readEvidence(raw, this.#pins.network, this.#pins.coordinator);
    if (header.type !== 'settlement') throw new Refusal('malformed', `a ${header.type}, no settlement`);
    const settlement = settlementOf(body);
    if (settlement.provider !== this.#pins.key.peerId) throw new Refusal('wrong_audience', 'of another provider');
    return settlement;
  }

  async statement(message: Fields): Promise<Bytes> {
    return encode({ t: 'say', statement: await this.#control.seal(message) });
  }

  /** To be sent when the page goes; good for a minute. */
  async lastWord(): Promise<Bytes> {
    return encode({ t: 'say', statement: await this.#control.last(leaving()) });
  }

  /** As a node gossips it: under the certificate. */
  async advert(offer: Fields): Promise<Bytes> {
    return encode({ t: 'offer', advert: encode([this.#certificate, await this.#gossip.seal(offer)]) });
  }

  /** For one HTTP request. */
  pass(request: Fields): Promise<Bytes> {
    return this.#passes.seal(request);
  }

  #sealer(audience: Bytes, lifeMs = 60_000): Sealer {
    const fixed = { network: this.#pins.network, audience, incarnation: this.welcome.incarnation };
    return new Sealer(this.#pins.key, fixed, () => this.coordinatorMs(), lifeMs);
  }
}
