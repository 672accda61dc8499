// SPDX-License-Identifier: Apache-2.0
/** The HTTP API. Every failure becomes an ApiError that says what is wrong and what to do next. */

import type { components } from './schema';

export type Schemas = components['schemas'];
export type Listing = Schemas['ListingView'];
export type Sample = Schemas['Sample'];

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly remedy: string,
    readonly field: string,
    /** Where in the query line, from 1; 0: nowhere in it. */
    readonly column = 0,
  ) {
    super(message);
  }

  /** Nothing answered: the market or the network is away, and trying again may help. */
  get offline(): boolean {
    return this.status === 0 || this.status === 503;
  }
}

const PREFIX = '/api/v1';
const PATIENCE_MS = 30_000;
let csrf = '';
let signedOut: () => void = () => undefined;

/** Called when the market says that nobody is signed in any more. */
export function onSignedOut(act: () => void): void {
  signedOut = act;
}

/** The value that proves a write comes from this page; the session gives it. */
export function setCsrf(value: string): void {
  csrf = value;
}

export const get = <T>(path: string, signal?: AbortSignal): Promise<T> => send<T>('GET', path, null, {}, signal);
/** `key`: the same one repeats the same request, however often it is sent. */
export const post = <T>(path: string, body: unknown, key = '', signal?: AbortSignal): Promise<T> =>
  send<T>('POST', path, JSON.stringify(body), { 'Content-Type': 'application/json', ...(key ? { 'Idempotency-Key': key } : {}) }, signal);
export const patch = <T>(path: string, body: unknown): Promise<T> =>
  send<T>('PATCH', path, JSON.stringify(body), { 'Content-Type': 'application/json' });
export const remove = <T>(path: string): Promise<T> => send<T>('DELETE', path, null, {});

/** One part of a file; `range` is its Content-Range. */
export const putPart = <T>(path: string, part: Blob, range: string, signal?: AbortSignal): Promise<T> =>
  send<T>('PUT', path, part, { 'Content-Type': 'application/octet-stream', 'Content-Range': range }, signal);

async function send<T>(
  method: string,
  path: string,
  body: BodyInit | null,
  more: Record<string, string>,
  signal?: AbortSignal,
): Promise<T> {
  const limit = AbortSignal.timeout(PATIENCE_MS);
  const headers: Record<string, string> = { Accept: 'application/json', ...more };
  const asker = csrf;
  if (method !== 'GET' && csrf) headers['X-CSRF-Token'] = csrf;
  let answer: Response;
  try {
    answer = await fetch(PREFIX + path, {
      method,
      headers,
      body,
      credentials: 'same-origin',
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
  } catch (problem) {
    if (signal?.aborted) throw problem;
    throw new ApiError(0, 'unreachable', 'The market does not answer.', 'Look at your network, then try again.', '');
  }
  // A late answer to whoever was here before says nothing of who is here now.
  if (answer.status === 401 && asker === csrf) signedOut();
  if (answer.ok) return (answer.status === 204 ? undefined : await answer.json()) as T;
  throw await problemOf(answer);
}

async function problemOf(answer: Response): Promise<ApiError> {
  try {
    const told = (await answer.json()) as Schemas['Problem'];
    const { code, detail, title, remedy, field } = told as Schemas['Problem'] & Record<string, string | undefined>;
    const text = detail || title || answer.statusText;
    return new ApiError(answer.status, code ?? '', text, remedy ?? '', field ?? '', Number(told.column ?? 0));
  } catch {
    return new ApiError(answer.status, '', `The market answered ${answer.status}.`, 'Try again in a moment.', '');
  }
}
