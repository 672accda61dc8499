// SPDX-License-Identifier: Apache-2.0
/** Puts a file into the content-addressed store, from where an earlier try stopped. */

import { ApiError, post, putPart, type Schemas } from './api/client';

const PART_BYTES = 4 * 1024 * 1024;

export async function digestOf(file: Blob): Promise<string> {
  const bytes = new Uint8Array(await crypto.subtle.digest('SHA-256', await file.arrayBuffer()));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** `signal` stops it where it is; another call goes on from there. */
export async function upload(file: Blob, digest: string, told: (fraction: number) => void, signal?: AbortSignal): Promise<void> {
  let view = await post<Schemas['ArtifactView']>('/artifacts', { digest, size_bytes: file.size }, '', signal);
  while (!view.complete) {
    const stop = Math.min(file.size, view.offset + PART_BYTES);
    const at = view.offset;
    view = await putPart<Schemas['ArtifactView']>(`/artifacts/${digest}`, file.slice(at, stop), `bytes ${at}-${stop - 1}/${file.size}`, signal);
    if (!view.complete && view.offset <= at) throw new ApiError(0, '', 'The upload does not go on.', 'Try again.', '');
    told(view.offset / file.size);
  }
  told(1);
}
