// SPDX-License-Identifier: Apache-2.0
/**
 * One WebSocket to `/live`: whoever watches a topic gets its snapshot, then each change in order. A lost connection
 * comes back by itself within five seconds and goes on behind each topic's last cursor, so nothing is missed or seen
 * twice.
 */

export interface Frame {
  topic: string;
  kind: 'snapshot' | 'more' | 'delta' | 'still' | 'reset' | 'slow';
  cursor: string;
  data: unknown;
}
type Topic = string | { topic: string; query?: string; order?: string };
type Watcher = (frame: Frame) => void;
interface Watched {
  topic: Topic;
  watchers: Set<Watcher>;
  cursor: string;
}

const RETRY_FIRST_MS = 250;
const RETRY_MAX_MS = 4_000;
/** The server pings every 20 s; a socket that is silent for longer is dead though it looks open. */
const QUIET_MAX_MS = 60_000;

class Feed {
  state = $state<'idle' | 'connecting' | 'live' | 'reconnecting'>('idle');
  /** When the last frame came, by this browser's clock; 0 before the first. */
  heardMs = $state(0);
  problem = $state('');
  #watched = new Map<string, Watched>();
  #socket: WebSocket | null = null;
  #tries = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    addEventListener('online', () => this.#now());
    document.addEventListener('visibilitychange', () => {
      if (document.visibilityState === 'visible' && this.#quiet()) this.#now();
    });
  }

  /** Until the function that it gives is called. */
  watch(topic: Topic, watcher: Watcher): () => void {
    const key = JSON.stringify(topic);
    const entry = this.#watched.get(key) ?? { topic, watchers: new Set<Watcher>(), cursor: '' };
    entry.watchers.add(watcher);
    this.#watched.set(key, entry);
    // Whoever comes needs the snapshot: this topic starts over, without a cursor.
    entry.cursor = '';
    this.#subscribe();
    return () => {
      entry.watchers.delete(watcher);
      if (!entry.watchers.size) this.#watched.delete(key);
      if (!this.#watched.size) this.#stop();
      else if (!entry.watchers.size) this.#subscribe();
    };
  }

  #stop(): void {
    clearTimeout(this.#retry);
    this.#socket?.close();
    this.#socket = null;
    this.state = 'idle';
  }

  #now(): void {
    if (!this.#watched.size) return;
    clearTimeout(this.#retry);
    this.#socket?.close();
    this.#socket = null;
    this.#connect();
  }

  #quiet(): boolean {
    return Date.now() - this.heardMs > QUIET_MAX_MS || this.#socket === null;
  }

  #connect(): void {
    if (this.#socket) return;
    this.state = this.#tries ? 'reconnecting' : 'connecting';
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const socket = new WebSocket(`${scheme}://${location.host}/live`);
    this.#socket = socket;
    socket.onopen = () => this.#subscribe();
    socket.onmessage = (event) => this.#take(String(event.data));
    socket.onclose = () => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      this.#again();
    };
  }

  #again(): void {
    if (!this.#watched.size) return;
    this.state = 'reconnecting';
    const wait = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** this.#tries) * (0.5 + Math.random() / 2);
    this.#tries += 1;
    this.#retry = setTimeout(() => this.#connect(), wait);
  }

  #subscribe(): void {
    if (this.#socket === null) {
      this.#connect();
    } else if (this.#socket.readyState === WebSocket.OPEN) {
      const topics = [...this.#watched.values()].map(({ topic, cursor }) => ({
        ...(typeof topic === 'string' ? { topic } : topic),
        ...(cursor ? { cursor } : {}),
      }));
      if (topics.length) this.#socket.send(JSON.stringify({ subscribe: topics }));
    }
  }

  #take(text: string): void {
    const frame = JSON.parse(text) as Frame & { code?: string; detail?: string };
    if (frame.code !== undefined && frame.kind === undefined) {
      this.problem = frame.detail ?? frame.code;
      return;
    }
    this.problem = '';
    this.#tries = 0;
    this.state = 'live';
    this.heardMs = Date.now();
    for (const entry of this.#watched.values()) {
      if (frame.topic !== nameOf(entry.topic)) continue;
      if (frame.cursor) entry.cursor = frame.cursor;
      if (frame.kind === 'reset') entry.cursor = '';
      for (const watcher of entry.watchers) watcher(frame);
    }
  }
}

/** As the server calls it. */
function nameOf(topic: Topic): string {
  if (typeof topic === 'string') return topic;
  return topic.query ? `${topic.topic}?${topic.query}` : topic.topic;
}

export const feed = new Feed();
