// SPDX-License-Identifier: Apache-2.0
/**
 * One WebSocket to `/live`: whoever watches a topic gets its snapshot, then each change in order. A lost connection
 * comes back by itself within five seconds and goes on behind the last cursor of each topic, so nothing is missed or
 * seen twice.
 */

import { backoffMs } from '../share/net/backoff';

export interface Frame {
  topic: string;
  /** `refused` is this page's own word: more offers match than a feed carries, so the topic is not asked for again. */
  kind: 'snapshot' | 'more' | 'delta' | 'still' | 'reset' | 'slow' | 'refused';
  cursor: string;
  data: unknown;
}
export interface Topic {
  topic: string;
  query?: string;
}
type Watcher = (frame: Frame) => void;
interface Watched {
  topic: Topic;
  watchers: Set<Watcher>;
  cursor: string;
  refused: boolean;
}

const RETRY_FIRST_MS = 250;
const RETRY_MAX_MS = 4_000;
/** A market tells every few seconds that nothing happened, and the server pings: longer silence is a dead socket. */
const QUIET_MAX_MS = 45_000;
const LOOK_MS = 5_000;

const nameOf = (topic: Topic): string => (topic.query ? `${topic.topic}?${topic.query}` : topic.topic);

class Feed {
  state = $state<'idle' | 'connecting' | 'live' | 'reconnecting'>('idle');
  /** When the last frame came, by this browser's clock; 0 before the first. */
  heardMs = $state(0);
  /** What the server refused, in its words. */
  problem = $state('');
  /** Called when the server says that whoever was signed in here is not any more. */
  signedOut: () => void = () => undefined;
  #watched = new Map<string, Watched>();
  #socket: WebSocket | null = null;
  #tries = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #asking = false;

  constructor() {
    addEventListener('online', () => this.reconnect());
    document.addEventListener('visibilitychange', () => this.#wake());
    // A machine that slept with this page on its screen tells it nothing; but its clock went on.
    let lookedMs = Date.now();
    setInterval(() => {
      const nowMs = Date.now();
      if (nowMs - lookedMs > QUIET_MAX_MS) this.#wake();
      lookedMs = nowMs;
    }, LOOK_MS);
  }

  #wake(): void {
    if (document.visibilityState === 'visible' && Date.now() - this.heardMs > QUIET_MAX_MS) this.reconnect();
  }

  /** Until the function that it gives is called. A topic that is watched already is told from its beginning again. */
  watch(topic: Topic, watcher: Watcher): () => void {
    const name = nameOf(topic);
    const entry = this.#watched.get(name) ?? { topic, watchers: new Set<Watcher>(), cursor: '', refused: false };
    entry.watchers.add(watcher);
    entry.cursor = '';
    entry.refused = false;
    this.#watched.set(name, entry);
    this.#subscribe();
    return () => {
      entry.watchers.delete(watcher);
      if (entry.watchers.size) return;
      this.#watched.delete(name);
      if (this.#wanted().length) this.#subscribe();
      else this.#stop();
    };
  }

  #wanted(): Watched[] {
    return [...this.#watched.values()].filter((one) => !one.refused);
  }

  #stop(): void {
    clearTimeout(this.#retry);
    this.#socket?.close();
    this.#socket = null;
    this.state = 'idle';
  }

  /** At once, as whoever is signed in now. */
  reconnect(): void {
    if (!this.#wanted().length) return;
    clearTimeout(this.#retry);
    this.#socket?.close();
    this.#socket = null;
    this.#connect();
  }

  #connect(): void {
    if (this.#socket) return;
    this.state = this.#tries ? 'reconnecting' : 'connecting';
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const socket = new WebSocket(`${scheme}://${location.host}/live`);
    this.#socket = socket;
    socket.onopen = () => this.#ask();
    socket.onmessage = (event) => this.#take(String(event.data));
    socket.onclose = () => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      this.#again();
    };
  }

  #again(): void {
    if (!this.#wanted().length) {
      this.state = 'idle';
      return;
    }
    this.state = 'reconnecting';
    this.#retry = setTimeout(() => this.#connect(), backoffMs(this.#tries, RETRY_FIRST_MS, RETRY_MAX_MS));
    this.#tries += 1;
  }

  /** What changes within one turn of the page is asked for at once. */
  #subscribe(): void {
    if (this.#asking) return;
    this.#asking = true;
    queueMicrotask(() => {
      this.#asking = false;
      if (!this.#wanted().length) return;
      if (this.#socket === null) this.#connect();
      else this.#ask();
    });
  }

  #ask(): void {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    const subscribe = this.#wanted().map(({ topic, cursor }) => (cursor ? { ...topic, cursor } : topic));
    if (subscribe.length) this.#socket.send(JSON.stringify({ subscribe }));
  }

  /** The connection ends with it; what else is watched is asked for on the next one. */
  #refuse(): void {
    for (const [name, entry] of this.#watched) {
      if (entry.refused || entry.topic.topic !== 'market') continue;
      entry.refused = true;
      for (const watcher of entry.watchers) watcher({ topic: name, kind: 'refused', cursor: '', data: null });
    }
  }

  #take(text: string): void {
    const frame = JSON.parse(text) as Frame & { code?: string; detail?: string; status?: number; field?: string };
    if (frame.kind === undefined) {
      if (frame.code === 'limit_exceeded' && frame.field === 'subscribe') this.#refuse();
      else this.problem = frame.detail || frame.code || '';
      if (frame.status === 401) this.signedOut();
      return;
    }
    this.problem = '';
    this.#tries = 0;
    this.state = 'live';
    this.heardMs = Date.now();
    const entry = this.#watched.get(frame.topic);
    if (!entry) return;
    if (frame.kind === 'reset') entry.cursor = '';
    else if (frame.cursor) entry.cursor = frame.cursor;
    for (const watcher of entry.watchers) watcher(frame);
  }
}

export const feed = new Feed();
