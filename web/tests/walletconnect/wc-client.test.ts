// SPDX-License-Identifier: Apache-2.0
/** The page's side against a wallet of Node's own cryptography, and against a relay and wallets that mean harm. */

import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { WalletConnectError, type Failure } from '../../src/lib/walletconnect/errors';
import type { Session } from '../../src/lib/walletconnect/rules';
import { bench, CHAIN, connected, IDENTITY, METHODS, OTHER, Peer, scanned, sealed, WISH, type Bench } from './bench';

const used: Bench[] = [];
const use = <T extends { on: Bench }>(found: T): T => (used.push(found.on), found);
afterEach(() => used.splice(0).forEach(({ line, client }) => (client.adopt(null), line.close())));

const fails = (work: Promise<unknown>, failure: Failure): Promise<void> =>
  assert.rejects(work, (problem) => problem instanceof WalletConnectError && problem.failure === failure);

describe('a session', () => {
  test('is proposed as Qubic’s wallets read it', async () => {
    const { proposal, peer } = use(await scanned());
    assert.match(proposal.uri, /^wc:[0-9a-f]{64}@2\?expiryTimestamp=\d{10}&relay-protocol=irn&symKey=[0-9a-f]{64}$/);
    assert.deepEqual(peer.proposal.params['requiredNamespaces'], { qubic: { chains: [CHAIN], methods: METHODS, events: [] } });
    assert.deepEqual(peer.proposal.params['relays'], [{ protocol: 'irn' }]);
    proposal.cancel();
  });

  test('is settled, kept and acknowledged', async () => {
    const { on, peer, session } = use(await connected());
    assert.deepEqual([session.topic, session.key, session.wallet, session.accounts], [peer.topic, peer.key, 'A wallet', [IDENTITY]]);
    assert.deepEqual(on.kept, [session]);
    assert.deepEqual(await peer.hears(1103), { jsonrpc: '2.0', id: 7_000, result: true });
    assert.ok(!on.relay.subscribed.has(peer.pairing) || (await on.relay.until(() => !on.relay.subscribed.has(peer.pairing))) === undefined);
  });

  test('is asked, and answers', async () => {
    const { on, peer } = use(await connected());
    const answer = on.client.request('qubic_sign', { from: IDENTITY, message: 'm' });
    const asked = await peer.hears(1108);
    const { request, chainId } = asked['params'] as { request: Record<string, unknown>; chainId: string };
    assert.deepEqual([request['method'], request['params'], chainId], ['qubic_sign', { from: IDENTITY, message: 'm' }, CHAIN]);
    await on.relay.told(peer.topic, peer.answers(Number(asked['id']), { result: { signature: 's' } }));
    assert.deepEqual(await answer, { signature: 's' });
  });

  test('answers each question by itself, in whatever order', async () => {
    const { on, peer } = use(await connected());
    const answers = [1, 2, 3].map((n) => on.client.request('qubic_sign', { n }));
    await peer.hears(1108, 3);
    for (const asked of peer.said(1108).reverse()) {
      const { n } = (asked['params'] as { request: { params: { n: number } } }).request.params;
      await on.relay.told(peer.topic, peer.answers(Number(asked['id']), { result: n }));
    }
    assert.deepEqual(await Promise.all(answers), [1, 2, 3]);
  });

  const REFUSALS: [number, Failure][] = [
    [5000, 'rejected'],
    [4001, 'rejected'],
    [-32001, 'busy'],
    [8000, 'unanswered'],
    [-32602, 'wallet'],
    [6000, 'ended'],
  ];
  for (const [code, failure] of REFUSALS) {
    test(`a wallet that says ${code} has ${failure}`, async () => {
      const { on, peer } = use(await connected());
      const answer = on.client.request('qubic_sign', {});
      const { id } = await peer.hears(1108);
      await Promise.all([fails(answer, failure), on.relay.told(peer.topic, peer.answers(Number(id), { error: { code, message: 'm' } }))]);
    });
  }

  test('a method that was not agreed on is not asked for', async () => {
    const { on, peer } = use(await connected());
    await fails(on.client.request('qubic_sendQubic', {}), 'wrong');
    assert.equal(peer.said(1108).length, 0);
  });

  test('is ended by the page: the wallet is told, and what was asked ends', async () => {
    const { on, peer } = use(await connected());
    const answer = on.client.request('qubic_sign', {});
    await peer.hears(1108);
    const ended = fails(answer, 'ended');
    await on.client.disconnect();
    await ended;
    assert.equal(on.client.session, null);
    assert.equal(on.kept.at(-1), null);
    assert.equal((await peer.hears(1112))['method'], 'wc_sessionDelete');
    await fails(on.client.request('qubic_sign', {}), 'ended');
  });

  test('is ended by the wallet', async () => {
    const { on, peer } = use(await connected());
    const ended = fails(on.client.request('qubic_sign', {}), 'ended');
    await peer.hears(1108);
    await on.relay.told(peer.topic, peer.asks(9_000, 'wc_sessionDelete', { code: 6000, message: 'm' }));
    await ended;
    assert.equal(on.client.session, null);
    assert.deepEqual(await peer.hears(1113), { jsonrpc: '2.0', id: 9_000, result: true });
  });

  test('lives on in the next page, and what came meanwhile is heard', async () => {
    const first = use(await connected());
    first.on.line.close();
    const on = use({ on: bench(first.session) }).on;
    await on.relay.until(() => on.relay.subscribed.has(first.peer.topic));
    await on.relay.told(first.peer.topic, first.peer.asks(9_000, 'wc_sessionDelete'));
    assert.equal(on.client.session, null);
  });

  test('is over at its end', async (context) => {
    const { session, on: before } = await connected();
    before.client.adopt(null);
    before.line.close();
    // Ends are whole seconds: an hour before this one, to the millisecond, whatever was left of a second when it was made.
    context.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: session.expiryS * 1000 - 3_600_000 });
    const { on } = use({ on: bench(session) });
    context.mock.timers.tick(3_599_000);
    assert.ok(on.client.session);
    context.mock.timers.tick(2_000);
    assert.equal(on.client.session, null);
    assert.deepEqual(on.kept, [null]);
  });

  test('a ping is answered', async () => {
    const { on, peer } = use(await connected());
    await on.relay.told(peer.topic, peer.asks(9_000, 'wc_sessionPing'));
    assert.deepEqual(await peer.hears(1115), { jsonrpc: '2.0', id: 9_000, result: true });
  });

  test('a new one takes the place of the old one, which is ended in its wallet', async () => {
    const { on, peer } = use(await connected());
    const proposal = await on.client.propose(WISH);
    const next = new Peer(on, proposal.uri);
    await next.accept();
    assert.equal((await proposal.session).topic, next.topic);
    assert.equal((await peer.hears(1112))['method'], 'wc_sessionDelete');
  });
});

describe('a proposal', () => {
  test('that is rejected says so, and the next one is another', async () => {
    const { on, proposal, peer } = use(await scanned());
    await Promise.all([fails(proposal.session, 'rejected'), on.relay.told(peer.pairing, peer.refusal())]);
    const next = await on.client.propose(WISH);
    assert.notEqual(next.uri, proposal.uri);
    next.cancel();
  });

  test('that nobody answers ends', async (context) => {
    context.mock.timers.enable({ apis: ['setTimeout'] });
    const { proposal } = use(await scanned());
    const ended = fails(proposal.session, 'unanswered');
    context.mock.timers.tick(300_001);
    await ended;
  });

  test('that is given up is taken back from the wallet', async () => {
    const { on, proposal, peer } = use(await scanned());
    const ended = fails(proposal.session, 'ended');
    proposal.cancel();
    await ended;
    await on.relay.until(() => on.relay.published.some((one) => one.topic === peer.pairing && one.tag === 1000));
    await on.relay.until(() => !on.relay.subscribed.has(peer.pairing));
    on.relay.deliver(peer.pairing, peer.agreement());
    assert.equal(on.client.session, null);
  });
});

describe('a hostile wallet', () => {
  const SETTLEMENTS: [string, Record<string, unknown>, string[]?][] = [
    ['another key than it answered with', { controller: { publicKey: 'ab'.repeat(32), metadata: {} } }],
    ['an end that is over', { expiry: 1 }],
    ['no end', { expiry: null }],
    ['no namespaces', { namespaces: {} }],
    ['accounts of another chain', {}, [`qubic:mainnet:${IDENTITY}`]],
    ['what is no identity', {}, [`${CHAIN}:<script>`, `${CHAIN}:${IDENTITY}A`]],
    ['fewer methods', { namespaces: { qubic: { accounts: [`${CHAIN}:${IDENTITY}`], methods: ['qubic_sign'], events: [] } } }],
  ];
  for (const [name, change, accounts] of SETTLEMENTS) {
    test(`that settles with ${name} gets no session`, async () => {
      const { on, proposal, peer } = use(await scanned());
      const refused = fails(proposal.session, 'wrong');
      await on.relay.told(peer.pairing, peer.agreement());
      await on.relay.told(peer.topic, peer.settlement(change, accounts));
      await refused;
      assert.equal(on.client.session, null);
      assert.deepEqual(on.kept, []);
      assert.ok('error' in (await peer.hears(1103)));
    });
  }

  test('a key of small order ends the proposal', async () => {
    const { on, proposal, peer } = use(await scanned());
    const result = { relay: { protocol: 'irn' }, responderPublicKey: '00'.repeat(32) };
    const message = sealed(peer.pairingKey, { id: peer.proposal.id, jsonrpc: '2.0', result });
    await Promise.all([fails(proposal.session, 'wrong'), on.relay.told(peer.pairing, message)]);
  });

  test('an end far off is cut', async () => {
    const { on, proposal, peer } = use(await scanned());
    await on.relay.told(peer.pairing, peer.agreement());
    await on.relay.told(peer.topic, peer.settlement({ expiry: Date.now() }));
    assert.ok((await proposal.session).expiryS <= Date.now() / 1000 + 30 * 86_400);
  });

  test('asks the page for nothing', async () => {
    const { on, peer } = use(await connected());
    const before = on.relay.published.length;
    await on.relay.told(peer.topic, peer.asks(9_000, 'wc_sessionRequest', { request: { method: 'qubic_sign', params: {} }, chainId: CHAIN }));
    await on.relay.told(peer.topic, peer.asks(9_001, 'wc_sessionPing'));
    await peer.hears(1115);
    assert.ok(on.relay.published.slice(before).every((one) => one.tag !== 1109));
  });
});

describe('a hostile relay', () => {
  test('forged, foreign and broken messages change nothing', async () => {
    const { on, peer } = use(await connected());
    const before = on.client.session;
    const deletion = peer.asks(9_000, 'wc_sessionDelete');
    const bad = [
      ['', ''],
      ['not base64', '*'],
      ['sealed with another key', sealed('ab'.repeat(32), { id: 1, jsonrpc: '2.0', method: 'wc_sessionDelete', params: {} })],
      ['changed', deletion.slice(0, 40) + (deletion[40] === 'A' ? 'B' : 'A') + deletion.slice(41)],
      ['no JSON-RPC', sealed(peer.key, { id: 1, method: 'wc_sessionDelete' })],
      ['an id that is no number', sealed(peer.key, { id: '1', jsonrpc: '2.0', method: 'wc_sessionDelete' })],
      ['a list', sealed(peer.key, [1])],
      ['null', sealed(peer.key, null)],
    ];
    for (const [, message = ''] of bad) await on.relay.told(peer.topic, message);
    for (const topic of ['ab'.repeat(32), peer.pairing, '']) await on.relay.told(topic, deletion);
    assert.equal(on.client.session, before);
    on.relay.line.say('{');
    on.relay.line.say('null');
    on.relay.line.say('{"id":1}');
    await on.relay.told(peer.topic, peer.asks(9_001, 'wc_sessionPing'));
    await peer.hears(1115);
  });

  test('a second answer to a proposal, or a second settlement, is not heard', async () => {
    const { on, proposal, peer } = use(await scanned());
    const thief = new Peer(on, proposal.uri);
    await on.relay.told(peer.pairing, peer.agreement());
    await on.relay.told(peer.pairing, thief.agreement());
    await on.relay.told(thief.topic, thief.settlement({}, [`${CHAIN}:${OTHER}`]));
    await on.relay.told(peer.topic, peer.settlement());
    const session = await proposal.session;
    assert.deepEqual(session.accounts, [IDENTITY]);
    await on.relay.told(peer.pairing, thief.agreement());
    await on.relay.told(peer.topic, peer.settlement({}, [`${CHAIN}:${OTHER}`]));
    assert.deepEqual(on.client.session, session);
  });

  test('an answer is of the question that it names, once, and on its topic', async () => {
    const { on, peer } = use(await connected());
    const answer = on.client.request('qubic_sign', {});
    const id = Number((await peer.hears(1108))['id']);
    await on.relay.told(peer.topic, peer.answers(id + 1, { result: 'of another' }));
    const proposal = await on.client.propose(WISH);
    const stranger = new Peer(on, proposal.uri);
    await on.relay.told(stranger.pairing, stranger.agreement());
    await on.relay.told(stranger.topic, stranger.answers(id, { result: 'of somebody else' }));
    proposal.cancel();
    await on.relay.told(peer.topic, peer.answers(id, { result: 'first' }));
    await on.relay.told(peer.topic, peer.answers(id, { result: 'second' }));
    assert.equal(await answer, 'first');
  });

  test('what the page itself said is not heard as if a wallet said it', async () => {
    const { on, peer } = use(await connected());
    const answer = on.client.request('qubic_sign', {});
    await peer.hears(1108);
    for (const one of [...on.relay.published]) await on.relay.told(one.topic, one.message);
    const id = Number((await peer.hears(1108))['id']);
    await on.relay.told(peer.topic, peer.answers(id, { result: 'r' }));
    assert.equal(await answer, 'r');
    assert.ok(on.client.session);
  });

  test('what comes again is acknowledged, and answered once', async () => {
    const { on, peer } = use(await connected());
    const ping = peer.asks(9_000, 'wc_sessionPing');
    for (const message of [ping, ping, peer.asks(9_001, 'wc_sessionPing')]) await on.relay.told(peer.topic, message);
    await peer.hears(1115, 2);
    assert.deepEqual(peer.said(1115).map((one) => one['id']), [9_000, 9_001]);
  });

  test('changes in another order: an older one does not come back, in a new page neither', async () => {
    const { on, peer } = use(await connected());
    const change = (id: number, who: string): string =>
      peer.asks(id, 'wc_sessionUpdate', { namespaces: { qubic: { accounts: [`${CHAIN}:${who}`], methods: METHODS, events: [] } } });
    const newer = change(9_002, OTHER);
    await on.relay.told(peer.topic, newer);
    await on.relay.told(peer.topic, change(9_001, IDENTITY));
    assert.deepEqual(on.client.session?.accounts, [OTHER]);
    const last = on.kept.at(-1) as Session;
    const next = use({ on: bench(last) }).on;
    await next.relay.until(() => next.relay.subscribed.has(peer.topic));
    await next.relay.told(peer.topic, change(9_001, IDENTITY));
    assert.deepEqual(next.client.session?.accounts, [OTHER]);
  });

  test('an extension is of the wallet, newer, later and not without end', async () => {
    const { on, peer, session } = use(await connected());
    const nowS = Math.floor(Date.now() / 1000);
    await on.relay.told(peer.topic, peer.asks(9_002, 'wc_sessionExtend', { expiry: nowS + 7_200 }));
    assert.equal(on.client.session?.expiryS, nowS + 7_200);
    const refused: [number, unknown][] = [
      [9_001, nowS + 7_300],
      [9_003, session.expiryS],
      [9_004, nowS + 90 * 86_400],
      [9_005, 'later'],
    ];
    for (const [id, expiry] of refused) await on.relay.told(peer.topic, peer.asks(id, 'wc_sessionExtend', { expiry }));
    assert.equal(on.client.session?.expiryS, nowS + 7_200);
  });
});

describe('cryptography that is not there', () => {
  for (const missing of ['X25519', 'Ed25519']) {
    test(`a browser without ${missing} says so`, async (context) => {
      const made = crypto.subtle.generateKey.bind(crypto.subtle) as (curve: { name: string }, ...more: unknown[]) => Promise<CryptoKeyPair>;
      context.mock.method(crypto.subtle, 'generateKey', (curve: { name: string }, ...more: unknown[]) =>
        curve.name === missing ? Promise.reject(new DOMException('Unrecognized name.', 'NotSupportedError')) : made(curve, ...more),
      );
      const { on } = use({ on: bench() });
      await fails(on.client.propose(WISH), 'unsupported');
    });
  }

  test('a page that is no secure context says so', async (context) => {
    Object.defineProperty(crypto, 'subtle', { value: undefined, configurable: true });
    context.after(() => Reflect.deleteProperty(crypto, 'subtle'));
    const { on } = use({ on: bench() });
    await fails(on.client.propose(WISH), 'unsupported');
    assert.equal(on.relay.sockets.length, 0);
  });
});

describe('the line', () => {
  test('breaks and comes back with its topics, and a question is said again', async () => {
    const { on, peer } = use(await connected());
    on.relay.silent = true;
    const answer = on.client.request('qubic_sign', {});
    const { id } = await peer.hears(1108);
    on.relay.silent = false;
    on.relay.subscribed.clear();
    on.relay.line.end();
    await peer.hears(1108, 2);
    await on.relay.until(() => on.relay.subscribed.has(peer.topic));
    assert.deepEqual(peer.said(1108).map((one) => one['id']), [id, id]);
    assert.ok(on.states.includes('away'));
    await on.relay.told(peer.topic, peer.answers(Number(id), { result: 'r' }));
    assert.equal(await answer, 'r');
  });

  test('what was cancelled before the relay had it is never asked', async () => {
    const { on, peer } = use(await connected());
    const [early, late] = [new AbortController(), new AbortController()];
    early.abort();
    await fails(on.client.request('qubic_sign', { n: 1 }, early.signal), 'unanswered');
    on.relay.line.end();
    const answer = on.client.request('qubic_sign', { n: 2 }, late.signal);
    late.abort();
    await fails(answer, 'unanswered');
    const next = on.client.request('qubic_sign', { n: 3 });
    const { id, params } = await peer.hears(1108);
    assert.deepEqual((params as { request: { params: unknown } }).request.params, { n: 3 });
    await on.relay.told(peer.topic, peer.answers(Number(id), { result: 'r' }));
    assert.equal(await next, 'r');
    assert.equal(peer.said(1108).length, 1);
  });

  test('a relay that refuses the project is not asked again', async () => {
    const on = bench();
    on.relay.closeWith = 3000;
    use({ on });
    await fails(on.client.propose(WISH), 'refused');
    assert.equal(on.states.at(-1), 'refused');
    assert.equal(on.relay.sockets.length, 1);
    on.relay.closeWith = 0;
    on.line.open();
    (await on.client.propose(WISH)).cancel();
  });

  test('a relay that takes each line and drops it is asked ever more rarely, until it answers', async (context) => {
    context.mock.timers.enable({ apis: ['setTimeout'] });
    context.mock.method(Math, 'random', () => 1);
    const { on } = use({ on: bench() });
    const opens = async (): Promise<void> => {
      while (on.line.state !== 'open') await new Promise(setImmediate);
    };
    const drops = async (waitMs: number): Promise<void> => {
      await opens();
      on.relay.line.end();
      context.mock.timers.tick(waitMs - 1);
      assert.equal(on.line.state, 'away');
      context.mock.timers.tick(1);
      assert.equal(on.line.state, 'connecting');
    };
    for (const waitMs of [1, 2, 4, 8]) await drops(waitMs);
    await opens();
    (await on.client.propose(WISH)).cancel();
    await drops(1);
  });

  test('that is closed and opened while it dials is one line', async () => {
    const { on } = use({ on: bench() });
    on.line.close();
    on.line.open();
    (await on.client.propose(WISH)).cancel();
    assert.equal(on.relay.sockets.length, 1);
  });

  test('its address carries the project and a token, and no key', async () => {
    const { on, session } = use(await connected());
    const url = new URL(on.relay.line.url);
    assert.deepEqual([url.origin, url.searchParams.get('projectId')], ['wss://relay.test', 'p']);
    assert.equal(url.searchParams.get('auth')?.split('.').length, 3);
    assert.ok(!on.relay.line.url.includes(session.key));
  });

  test('what was acknowledged had been kept', async () => {
    const { on, peer } = use(await connected());
    const id = on.relay.deliver(peer.topic, peer.asks(9_000, 'wc_sessionDelete'));
    await on.relay.until(() => on.relay.acknowledged.includes(id));
    assert.equal(on.kept.at(-1), null);
  });
});
