// SPDX-License-Identifier: Apache-2.0
/** Held to what the Python code makes (`scripts/tab_vectors.py`): bytes, digests, signatures, refusals. */

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { packArrays, readNpy } from '../../src/share/net/arrays';
import { base58, concat, equal, hex, sha256, unhex, utf8, type Bytes } from '../../src/share/net/bytes';
import * as digests from '../../src/share/net/digests';
import { Refusal, Sealer } from '../../src/share/net/envelope';
import { listingIdOf } from '../../src/share/net/ids';
import { identityOf, peerIdOf, verify, type Identity } from '../../src/share/net/keys';
import * as say from '../../src/share/net/messages';
import { decode, encode, Float, type Decoded, type Fields } from '../../src/share/net/msgpack';
import { KERNELS } from '../../src/share/net/rules';
import { answer, believeChallenge, Session, type Pins } from '../../src/share/net/session';
import vectors from './vectors.json';

type Body = { [name: string]: Decoded };
const NOW = vectors.now_ms;
const ATTEMPT = '00000002-0000-4000-8000-000000000001';
const JOB = '00000001-0000-4000-8000-000000000001';
/** Of a private key in PKCS #8, before its 32 bytes (RFC 8410). */
const PKCS8 = '302e020100300506032b657004220420';

async function identity(name: keyof typeof vectors.keys): Promise<Identity> {
  const { seed, public: known } = vectors.keys[name];
  const usage = { name: 'Ed25519' };
  const privateKey = await crypto.subtle.importKey('pkcs8', unhex(PKCS8 + seed), usage, false, ['sign']);
  const publicKey = await crypto.subtle.importKey('raw', unhex(known), usage, true, ['verify']);
  return identityOf({ privateKey, publicKey });
}

async function pins(): Promise<Pins> {
  return { key: await identity('tab'), network: 'devnet', coordinator: unhex(vectors.keys.coordinator.public) };
}

const assignOf = (body: string): say.Assign => say.assignOf(decode(unhex(body)) as Body);

function linkOf(body: string): say.Link {
  const said = decode(unhex(body)) as Body;
  const units = said['units'] as Body;
  return {
    index: Number(said['index']),
    units: { start: Number(units['start']), stop: Number(units['stop']) },
    outputDigest: said['output_digest'] as Bytes,
    outputBytes: Number(said['output_bytes']),
    claimedMs: Number(said['claimed_ms']),
    predecessor: said['predecessor'] as Bytes,
  };
}

describe('keys', () => {
  for (const [name, known] of Object.entries(vectors.keys)) {
    test(`the peer id of ${name}`, async () => {
      assert.equal(peerIdOf(unhex(known.public)), known.peer_id);
      assert.equal((await identity(name as keyof typeof vectors.keys)).peerId, known.peer_id);
    });
  }

  test('noughts in front are kept', () => assert.equal(base58(Uint8Array.of(0, 0, 1)), '112'));

  test('a signature is its key’s own', async () => {
    const [mine, other] = [await identity('tab'), await identity('other')];
    const signature = await mine.sign(utf8('x'));
    assert.equal(await verify(mine.publicKey, utf8('x'), signature), true);
    assert.equal(await verify(other.publicKey, utf8('x'), signature), false);
    assert.equal(await verify(mine.publicKey, utf8('y'), signature), false);
    assert.equal(await verify(new Uint8Array(3), utf8('x'), signature), false);
  });

  test('the listing’s id', async () => {
    assert.equal(await listingIdOf(vectors.keys.tab.peer_id, 'webgpu-1'), vectors.listing_id);
  });
});

describe('digests', () => {
  assert.equal(vectors.assigns.length, 6);
  for (const { params, body, params_digest, inputs_digest } of vectors.assigns) {
    test(`an assignment is written as it was read, and its digests are the market’s: ${params}`, async () => {
      assert.equal(hex(encode(decode(unhex(body)) as Fields)), body);
      const assign = assignOf(body);
      assert.equal(hex(await digests.ofParams(assign.params)), params_digest);
      assert.equal(hex(await digests.ofInputs(assign.inputs)), inputs_digest);
      assert.equal(hex(await digests.ofInputs([...assign.inputs].reverse())), inputs_digest);
    });
  }

  test('2 and 2.0 have digests of their own', async () => {
    const [whole, real] = [await digests.ofParams({ x: 2 }), await digests.ofParams({ x: new Float(2) })];
    assert.notEqual(hex(whole), hex(real));
  });

  test('a chain of links', async () => {
    let predecessor: Bytes = digests.ZERO;
    for (const { body, digest } of vectors.links) {
      const link = linkOf(body);
      assert.equal(hex(link.predecessor), hex(predecessor));
      assert.equal(hex(encode(say.link(link))), body);
      predecessor = await digests.ofLink(link);
      assert.equal(hex(predecessor), digest);
    }
  });
});

function reported(outcome: say.Outcome, failure: { code: string; detail: string } | null): Promise<Fields> {
  const [first] = vectors.assigns;
  assert.ok(first);
  const assign = assignOf(first.body);
  return Promise.all([digests.ofParams({}), digests.ofInputs(assign.inputs)]).then(([paramsDigest, inputsDigest]) =>
    say.report({
      assign,
      outcome,
      failure,
      paramsDigest,
      inputsDigest,
      links: 3,
      unitsDone: 70_000,
      head: unhex(vectors.links[2]?.digest ?? ''),
      claimedMs: 3_000,
      startedMs: NOW,
      finishedMs: NOW + 5_000,
    }),
  );
}

async function statements(): Promise<Record<keyof typeof vectors.messages, Fields>> {
  const [first] = vectors.assigns;
  const assign = assignOf(first?.body ?? '');
  const host = { system: 'browser', cpuModel: '', cpuCores: 8, memoryBytes: 0, agent: 'a browser' };
  const beat = (fraction: number, elapsedMs: number): say.Beat => ({ attemptId: ATTEMPT, fence: 3, fraction, elapsedMs });
  const nonce = Uint8Array.from({ length: 32 }, (_, at) => at);
  const attempts = [{ attemptId: ATTEMPT, fence: 3, running: true }];
  const check = {
    id: 'webgpu',
    title: 'WebGPU',
    status: 'warn',
    actual: 'slow',
    required: 'fast',
    unit: 'GFLOP/s',
    purpose: 'To compute.',
    remedy: 'Wait.',
  } as const;
  return {
    hello: say.hello(nonce, NOW, host, attempts, 'eu'),
    heartbeat: say.heartbeat([beat(0, 0), beat(0.25, 123_456), beat(1, 2 ** 40)]),
    idle: say.heartbeat([]),
    accept: say.accept(assign),
    decline: say.decline(assign, 'busy'),
    progress: say.progress(beat(1, 900), null),
    link: say.progress(beat(0.5, 900), linkOf(vectors.links[1]?.body ?? '')),
    completed: await reported('completed', null),
    failed: await reported('failed', { code: 'device_lost', detail: 'gone' }),
    offer: say.offer({
      device: {
        deviceId: 'webgpu-1',
        model: 'A GPU',
        memoryBytes: 8 * 1024 ** 3,
        driver: 'maker 12',
        backends: ['webgpu'],
        fallback: false,
      },
      rateQuPerH: 3_600,
      region: 'eu',
      availability: 'busy',
      rates: [
        { kernel: 'matmul', backend: 'webgpu', flopsPerS: 2e9, bytesPerS: 1.5e9, overheadS: 0 },
        { kernel: 'mandelbrot', backend: 'webgpu', flopsPerS: 0, bytesPerS: 1, overheadS: 0.25 },
      ],
      cpuCores: 8,
      country: 'DE',
    }),
    artifact_request: say.artifactRequest('PUT', utf8('d'.repeat(32)), 70_000, assign),
    selftest: say.selfTest(JOB, 'webgpu-1', NOW, 1_234, [check]),
    leaving: say.leaving(),
    settlements_ask: say.settlementsAsk({ atMs: NOW, id: ATTEMPT }),
    refused: say.refused('malformed', 'no'),
  };
}

test('each statement is the Python code’s, byte for byte', async () => {
  const mine = await statements();
  assert.deepEqual(Object.keys(mine), Object.keys(vectors.messages));
  for (const [name, message] of Object.entries(mine)) {
    assert.equal(hex(encode(message)), vectors.messages[name as keyof typeof vectors.messages], name);
  }
});

describe('a session', () => {
  const { session: known } = vectors;
  const begin = async (clock: () => number = () => 0): Promise<Session> => {
    const held = await pins();
    const challenge = await believeChallenge(unhex(known.challenge), held);
    return Session.begin(unhex(known.welcome), challenge, held, clock);
  };

  test('the challenge is answered with the very bytes', async () => {
    const held = await pins();
    const challenge = await believeChallenge(unhex(known.challenge), held);
    assert.equal(hex(await answer(challenge, (await statements()).hello, held)), known.hello);
    const opened = encode({ t: 'open', peer_id: held.key.peerId, network: 'devnet' });
    assert.equal(hex(opened), known.open);
  });

  test('a challenge for somebody else, or by somebody else, is not answered', async () => {
    const held = await pins();
    const other = await identity('other');
    const asOther = { ...held, key: other };
    await assert.rejects(believeChallenge(unhex(known.challenge), asOther), { code: 'wrong_audience' });
    await assert.rejects(believeChallenge(unhex(known.challenge), { ...held, coordinator: other.publicKey }), {
      code: 'bad_signature',
    });
    await assert.rejects(believeChallenge(unhex(known.welcome), held), Refusal);
  });

  test('statements and offers leave as they are awaited', async () => {
    const session = await begin();
    assert.equal(session.region, 'eu');
    assert.equal(session.welcome.heartbeatS, 2);
    assert.equal(hex(await session.statement((await statements()).idle)), known.say);
    assert.equal(hex(await session.advert((await statements()).offer)), known.offer);
  });

  test('the last word is signed ahead, and follows whatever else is said', async () => {
    const session = await begin();
    assert.equal(hex(await session.lastWord()), known.last);
    assert.equal(hex(await session.statement((await statements()).idle)), known.say);
  });

  test('settlements are told again as they were signed, and of this tab alone', async () => {
    const session = await begin();
    const again = known.told_again;
    assert.deepEqual(
      (({ attemptId, paidQu, decidedMs }) => [attemptId, paidQu, decidedMs])(await session.settlement(unhex(again.mine))),
      [ATTEMPT, 2, NOW],
    );
    await assert.rejects(session.settlement(unhex(again["another's"])), { code: 'wrong_audience' });
    await assert.rejects(session.settlement(unhex(again.forged)), { code: 'bad_signature' });
    await assert.rejects(session.settlement(unhex(again['no settlement'])), { code: 'malformed' });
  });

  test('commands are believed, each once', async () => {
    const session = await begin();
    for (const { type, envelope } of known.commands) {
      const { command } = await session.believe(unhex(envelope));
      assert.equal(command.t, type.replace('report ', ''));
      if (command.t === 'acknowledged') assert.equal(command.link, type === 'acknowledged' ? 2 : null);
      if (command.t === 'settlements') {
        assert.deepEqual([command.told.map(hex), command.next, command.more], [
          [known.told_again.mine],
          { atMs: NOW, id: ATTEMPT },
          true,
        ]);
      }
      if (command.t === 'settlement') assert.equal(command.settlement.paidQu, 2);
      await assert.rejects(session.believe(unhex(envelope)), { code: 'replayed' });
    }
  });

  test('what is not to be believed is refused by name', async () => {
    const session = await begin();
    const [first] = known.commands;
    await session.believe(unhex(first?.envelope ?? ''));
    for (const { what, code, envelope } of known.wrong) {
      await assert.rejects(session.believe(unhex(envelope)), { code }, what);
    }
    assert.equal(known.wrong.length, 10);
  });

  test('expiry is judged by the coordinator’s clock, whatever this one says', async () => {
    let steady = 5;
    const session = await begin(() => steady);
    steady += 61_000;
    await assert.rejects(session.believe(unhex(known.commands[0]?.envelope ?? '')), { code: 'expired' });
    assert.equal(session.coordinatorMs(), NOW + 61_000);
  });
});

test('counters rise in the order of the calls', async () => {
  const held = await pins();
  const fixed = { network: 'devnet', audience: held.coordinator, incarnation: 5 };
  const sealer = new Sealer(held.key, fixed, () => NOW);
  const sealed = await Promise.all([1, 2, 3].map(() => sealer.seal(say.heartbeat([]))));
  const counters = sealed.map((raw) => {
    const [signed] = decode(raw) as [Bytes];
    return (decode(signed) as Decoded[])[6];
  });
  assert.deepEqual(counters, [1, 2, 3]);
});

describe('arrays', () => {
  for (const [name, { packed, arrays }] of Object.entries(vectors.arrays)) {
    test(`outputs are packed as the check reads them: ${name}`, async () => {
      const found = [];
      for (const one of arrays) {
        const made = one.npy
          ? await readNpy(unhex(one.npy))
          : { dtype: 'float32', shape: one.shape, data: Float32Array.from({ length: 130 * 130 }, (_, at) => at).buffer };
        assert.ok(made);
        assert.deepEqual(made.shape, one.shape);
        found.push([one.name, made] as const);
      }
      assert.equal(hex(await sha256(packArrays(Object.fromEntries(found)))), packed);
    });
  }

  test('what is no array is none', async () => {
    assert.equal(await readNpy(utf8('hello')), null);
    assert.equal(equal(concat(utf8('a'), utf8('b')), utf8('ab')), true);
  });
});

test('the tab’s kernels are of the versions that the market has', () => {
  assert.deepEqual(KERNELS, vectors.kernels);
});
