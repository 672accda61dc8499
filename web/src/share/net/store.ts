// SPDX-License-Identifier: Apache-2.0
/** The artifact store over HTTP: each request is signed for one attempt, method, digest and size (trust D1). */

import { backoffMs } from './backoff';
import { base64, equal, hex, sha256, type Bytes } from './bytes';
import { artifactRequest } from './messages';
import type { Ticker } from './ticker';
import type { Fields } from './msgpack';

const PATIENCE_MS = 120_000;
const REQUEST_MS = 60_000;
const PART_BYTES = 4 * 1024 * 1024;
const RETRY_FIRST_MS = 200;
const RETRY_MAX_MS = 3_000;
/** 401: the session, and with it the pass, was renewed. 409: another request for it is still under way. */
const MAY_PASS = new Set([401, 408, 409, 425, 429]);

export interface Artifact {
  digest: Bytes;
  sizeBytes: number;
  attempt: { attemptId: string; fence: number };
}
/** The store's address, and the header for one request; waits for a session. */
export type Authorise = (request: Fields) => Promise<{ url: string; token: Bytes }>;

/** `code` is what an attempt reports. */
export class StoreFailed extends Error {
  readonly code: string;
  constructor(code: string, detail: string) {
    super(detail);
    this.code = code;
  }
}
class Again extends Error {}

export class Store {
  readonly #authorise: Authorise;
  readonly #ticker: Ticker;
  readonly #fetch: typeof fetch;

  constructor(authorise: Authorise, ticker: Ticker, fetcher: typeof fetch = (...words) => fetch(...words)) {
    this.#authorise = authorise;
    this.#ticker = ticker;
    this.#fetch = fetcher;
  }

  /** The whole content, its digest checked. Throws StoreFailed, or what `signal` was aborted with. */
  async get(artifact: Artifact, signal: AbortSignal): Promise<Bytes> {
    const data = await this.#persist(signal, async () => {
      const response = await this.#ask('GET', artifact, signal, null);
      return new Uint8Array(await response.arrayBuffer());
    });
    if (data.length !== artifact.sizeBytes || !equal(await sha256(data), artifact.digest)) {
      throw new StoreFailed('wrong_content', 'the store gives other bytes than were announced');
    }
    return data;
  }

  /** Resolves when the store has all of it, in parts, so that one request is always over in reasonable time. */
  async put(artifact: Artifact, content: Bytes, signal: AbortSignal): Promise<void> {
    let offset = 0;
    let sure = true;
    const part = async (): Promise<number> => {
      if (!sure) offset = await this.#reached(artifact, signal);
      if (offset >= content.length) return offset;
      sure = false;
      const stop = Math.min(offset + PART_BYTES, content.length);
      const range = `bytes ${offset}-${stop - 1}/${content.length}`;
      await this.#ask('PUT', artifact, signal, content.subarray(offset, stop), range);
      sure = true;
      return stop;
    };
    while (offset < content.length) offset = await this.#persist(signal, part);
  }

  /** After a fault: how much of it is there. */
  async #reached(artifact: Artifact, signal: AbortSignal): Promise<number> {
    const response = await this.#ask('HEAD', artifact, signal, null);
    const text = response.status === 404 ? '0' : (response.headers.get('Upload-Offset') ?? '0');
    return /^\d+$/.test(text) ? Math.min(Number(text), artifact.sizeBytes) : 0;
  }

  async #persist<T>(signal: AbortSignal, step: () => Promise<T>): Promise<T> {
    const giveUpMs = this.#ticker.nowMs() + PATIENCE_MS;
    for (let failures = 0; ; failures += 1) {
      try {
        return await step();
      } catch (problem) {
        signal.throwIfAborted();
        if (!(problem instanceof Again)) throw problem;
        if (this.#ticker.nowMs() > giveUpMs) throw new StoreFailed('store_unavailable', problem.message);
        await this.#ticker.sleep(backoffMs(failures, RETRY_FIRST_MS, RETRY_MAX_MS), signal);
      }
    }
  }

  async #ask(
    method: 'GET' | 'HEAD' | 'PUT',
    artifact: Artifact,
    signal: AbortSignal,
    body: Bytes | null,
    range = '',
  ): Promise<Response> {
    const request = artifactRequest(method, artifact.digest, artifact.sizeBytes, artifact.attempt);
    const { url, token } = await this.#authorise(request);
    signal.throwIfAborted();
    const headers: Record<string, string> = { Authorization: `Qubix ${base64(token)}` };
    if (body) headers['Content-Type'] = 'application/octet-stream';
    if (range) headers['Content-Range'] = range;
    let response: Response;
    try {
      response = await this.#fetch(`${url.replace(/\/$/, '')}/${hex(artifact.digest)}`, {
        method,
        headers,
        body,
        credentials: 'omit',
        signal: AbortSignal.any([signal, AbortSignal.timeout(REQUEST_MS)]),
      });
    } catch (problem) {
      throw new Again(String(problem));
    }
    if (MAY_PASS.has(response.status) || response.status >= 500) throw new Again(`HTTP status ${response.status}`);
    if (method === 'HEAD' && response.status === 404) return response;
    if (!response.ok) {
      const said = (await response.text().catch(() => '')).slice(0, 300);
      throw new StoreFailed('store_refused', `the store answers with HTTP status ${response.status}: ${said}`);
    }
    return response;
  }
}
