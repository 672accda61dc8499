// SPDX-License-Identifier: Apache-2.0
/**
 * The way to the artifact store, there and back, with a test artifact of the tab's own: signed for one method, digest and
 * size like a job's data (trust D1); the store keeps one of a node, for minutes.
 */

import type { Way } from '../gpu/port';
import { base64, equal, hex, sha256, type Bytes } from './bytes';
import type { Authorise } from './store';

const BYTES = 4 * 1024 * 1024;
/** What `getRandomValues` gives at once. */
const BLOCK_BYTES = 65_536;
const REQUEST_MS = 60_000;

/** Never rejects for what a network does. */
export async function measuredWay(authorise: Authorise, fetcher: typeof fetch): Promise<Way> {
  const data = new Uint8Array(BYTES);
  for (let at = 0; at < BYTES; at += BLOCK_BYTES) crypto.getRandomValues(data.subarray(at, at + BLOCK_BYTES));
  const digest = await sha256(data);
  try {
    const up = await timed(authorise, fetcher, 'PUT', digest, data);
    const down = await timed(authorise, fetcher, 'GET', digest, null);
    if (!equal(down.came, data)) return { up: 0, down: 0, problem: 'the store gave back other bytes than were sent' };
    return { up: BYTES / up.s, down: BYTES / down.s, problem: '' };
  } catch (problem) {
    return { up: 0, down: 0, problem: problem instanceof Error ? problem.message : String(problem) };
  }
}

async function timed(
  authorise: Authorise,
  fetcher: typeof fetch,
  method: 'GET' | 'PUT',
  digest: Bytes,
  body: Bytes | null,
): Promise<{ s: number; came: Bytes }> {
  const { url, token } = await authorise({ t: 'probe_request', method, digest, size_bytes: BYTES });
  const headers: Record<string, string> = { Authorization: `Qubix ${base64(token)}` };
  if (body) headers['Content-Type'] = 'application/octet-stream';
  const since = performance.now();
  const answer = await fetcher(`${url}/${hex(digest)}`, { method, headers, body, credentials: 'omit', signal: AbortSignal.timeout(REQUEST_MS) });
  const came = new Uint8Array(await answer.arrayBuffer());
  if (!answer.ok) throw new Error(`the store answers with HTTP status ${answer.status}`);
  return { s: Math.max(performance.now() - since, 0.001) / 1000, came };
}
