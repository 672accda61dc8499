// SPDX-License-Identifier: Apache-2.0
/** The tab's one conversation with the coordinator: dialled again for as long as it is wanted. */

import { backoffMs } from './backoff';
import type { Bytes } from './bytes';
import { Refusal, type Opened } from './envelope';
import { refused, type Command } from './messages';
import { encode, type Fields } from './msgpack';
import { answer, believeChallenge, Session, type Pins } from './session';
import type { Ticker } from './ticker';

export const PATH = '/api/v1/browser-node';
/** WebSocket codes: a newer session of this key speaks; what was said is not taken. */
const TAKEN_OVER = 4001;
const POLICY = 1008;
const HANDSHAKE_MS = 20_000;
const BACKOFF_FIRST_MS = 250;
const BACKOFF_MAX_MS = 5_000;
const REFUSED_MS = 15_000;
/** Its life is a minute. */
const LAST_WORD_MS = 20_000;
const UNSENT_BYTES_MAX = 4 * 1024 * 1024;
const FRAMES_MAX = 1024;

export interface Ends {
  /** The session stands; `live.signal` is aborted when it ends. */
  up(live: Live): void;
  down(): void;
  command(command: Command, opened: Opened): Promise<void>;
  hello(nonce: Bytes): Fields;
  /** Not newer than every session before: a recording. */
  fresh(incarnation: number): Promise<boolean>;
  refusedBy(detail: string): void;
  unreachable(detail: string): void;
  /** The same key speaks from somewhere else; this one is silent from now on. */
  takenOver(): void;
}

/** One session on one socket, while it lasts. */
export class Live {
  readonly session: Session;
  readonly #socket: Socket;
  /** Sealed and sent in one order: sealing takes a moment, and counters must rise on the wire. */
  #order: Promise<unknown> = Promise.resolve();
  #lastWord: Bytes | null = null;
  #lastWordMs = -Infinity;

  constructor(session: Session, socket: Socket) {
    this.session = session;
    this.#socket = socket;
  }

  get signal(): AbortSignal {
    return this.#socket.over.signal;
  }

  send(message: Fields): void {
    this.#queue(() => this.session.statement(message));
  }

  offer(offer: Fields): void {
    this.#queue(() => this.session.advert(offer));
  }

  /** Has the last word signed anew, as long as it is asked for: a page that goes has no time to sign. */
  keepLastWord(nowMs: number): void {
    if (nowMs < this.#lastWordMs + LAST_WORD_MS) return;
    this.#lastWordMs = nowMs;
    void this.session.lastWord().then((word) => (this.#lastWord = word));
  }

  /** At once: the page goes. */
  leave(): void {
    if (this.#lastWord) this.#socket.send(this.#lastWord);
    this.#socket.close();
  }

  /** Resolves when everything so far is handed to the socket. */
  async flushed(): Promise<void> {
    await this.#order;
  }

  #queue(sealed: () => Promise<Bytes>): void {
    this.#order = this.#order.then(async () => this.#socket.send(await sealed())).catch(() => this.#socket.close());
  }
}

/** A WebSocket whose messages are taken one by one. */
class Socket {
  readonly over = new AbortController();
  code = 0;
  reason = '';
  readonly #socket: WebSocket;
  readonly #frames: Bytes[] = [];
  #wake: (() => void) | null = null;

  constructor(url: string) {
    this.#socket = new WebSocket(url);
    this.#socket.binaryType = 'arraybuffer';
    this.#socket.onmessage = ({ data }) => {
      if (!(data instanceof ArrayBuffer) || this.#frames.length >= FRAMES_MAX) this.close();
      else this.#frames.push(new Uint8Array(data));
      this.#wake?.();
    };
    this.#socket.onopen = () => this.#wake?.();
    this.#socket.onclose = ({ code, reason }) => {
      this.code = code;
      this.reason = reason;
      this.over.abort(new Error(reason || `closed with ${code}`));
      this.#wake?.();
    };
  }

  /** Rejects when it could not be opened. */
  async opened(): Promise<void> {
    while (this.#socket.readyState === WebSocket.CONNECTING) await this.#change();
    this.over.signal.throwIfAborted();
  }

  /** The next message; null when it is closed. */
  async next(): Promise<Bytes | null> {
    for (;;) {
      const frame = this.#frames.shift();
      if (frame) return frame;
      if (this.over.signal.aborted) return null;
      await this.#change();
    }
  }

  send(data: Bytes): void {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    if (this.#socket.bufferedAmount > UNSENT_BYTES_MAX) this.close();
    else this.#socket.send(data);
  }

  close(): void {
    this.#socket.close();
    // A peer that is gone never answers the goodbye.
    this.over.abort(new Error('closed'));
    this.#wake?.();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = null;
        resolve();
      };
    });
  }
}

export class Connection {
  readonly #url: string;
  readonly #pins: Pins;
  readonly #ticker: Ticker;
  readonly #ends: Ends;
  #socket: Socket | null = null;

  constructor(url: string, pins: Pins, ticker: Ticker, ends: Ends) {
    this.#url = url;
    this.#pins = pins;
    this.#ticker = ticker;
    this.#ends = ends;
  }

  /** Until `stop` is aborted, or the key is used somewhere else. */
  async run(stop: AbortSignal): Promise<void> {
    stop.addEventListener('abort', () => this.#socket?.close(), { once: true });
    for (let failures = 0; !stop.aborted; failures += 1) {
      const began = this.#ticker.nowMs();
      const ended = await this.#once();
      if (ended === 'taken_over') {
        this.#ends.takenOver();
        return;
      }
      if (stop.aborted) return;
      if (this.#ticker.nowMs() - began > BACKOFF_MAX_MS) failures = 0;
      const [first, most] = ended === 'refused' ? [REFUSED_MS, REFUSED_MS] : [BACKOFF_FIRST_MS, BACKOFF_MAX_MS];
      await this.#ticker.sleep(backoffMs(failures, first, most), stop).catch(() => undefined);
    }
  }

  async #once(): Promise<'ended' | 'refused' | 'taken_over'> {
    const socket = new Socket(this.#url);
    this.#socket = socket;
    const late = new AbortController();
    void this.#ticker.sleep(HANDSHAKE_MS, late.signal).then(
      () => socket.close(),
      () => undefined,
    );
    let live: Live | null = null;
    try {
      live = await this.#shakeHands(socket);
      late.abort(new Error('in time'));
      this.#ends.up(live);
      await this.#obey(live.session, socket, live);
    } catch (problem) {
      if (problem instanceof Refusal) this.#ends.refusedBy(problem.message);
      else if (!socket.reason) this.#ends.unreachable(String(problem));
    } finally {
      late.abort(new Error('over'));
      socket.close();
      if (live) this.#ends.down();
    }
    if (socket.code === TAKEN_OVER) return 'taken_over';
    if (socket.code !== POLICY) return 'ended';
    this.#ends.refusedBy(socket.reason);
    return 'refused';
  }

  async #shakeHands(socket: Socket): Promise<Live> {
    await socket.opened();
    socket.send(encode({ t: 'open', peer_id: this.#pins.key.peerId, network: this.#pins.network }));
    const challenge = await believeChallenge(await this.#frame(socket), this.#pins);
    const hello = await answer(challenge, this.#ends.hello(challenge.nonce), this.#pins);
    socket.send(encode({ t: 'say', statement: hello }));
    const session = await Session.begin(await this.#frame(socket), challenge, this.#pins, () => this.#ticker.nowMs());
    if (!(await this.#ends.fresh(session.welcome.incarnation))) throw new Refusal('replayed', 'an old session');
    return new Live(session, socket);
  }

  async #frame(socket: Socket): Promise<Bytes> {
    const frame = await socket.next();
    if (!frame) throw new Error(socket.reason || 'the connection broke');
    return frame;
  }

  async #obey(session: Session, socket: Socket, live: Live): Promise<void> {
    for (;;) {
      const raw = await socket.next();
      if (!raw) return;
      try {
        const { command, opened } = await session.believe(raw);
        if (command.t === 'renewal') await session.certify(command.certificate);
        else await this.#ends.command(command, opened);
      } catch (problem) {
        if (!(problem instanceof Refusal)) throw problem;
        live.send(refused(problem.code, problem.message));
      }
    }
  }
}
