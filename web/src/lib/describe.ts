// SPDX-License-Identifier: Apache-2.0
/** A model, described by the market: asked for once, then heard of. */

import { get, post } from './api/client';
import { feed } from './feed.svelte';
import type { View } from './models';

const AGAIN_MS = 5_000;

/** What the market makes of a model, once a verifier has looked. */
export async function described(body: object, signal: AbortSignal): Promise<View> {
  const asked = await post<View>('/models', body, '', signal);
  return asked.state === 'waiting' ? await answer(asked.model_id, signal) : asked;
}

/** By the feed; and by asking now and then, for a line that carries no feed. */
function answer(id: string, signal: AbortSignal): Promise<View> {
  return new Promise((take, refuse) => {
    const hear = (view: View): void => {
      if (view.state === 'waiting') return;
      stop();
      take(view);
    };
    const unwatch = feed.watch({ topic: `model:${id}` }, (frame) => {
      if (frame.kind === 'snapshot' || frame.kind === 'delta') hear(frame.data as View);
    });
    const timer = setInterval(() => {
      get<View>(`/models/${id}`, signal).then(hear, () => undefined);
    }, AGAIN_MS);
    const stop = (): void => {
      clearInterval(timer);
      unwatch();
      signal.removeEventListener('abort', cut);
    };
    const cut = (): void => {
      stop();
      refuse(signal.reason);
    };
    signal.addEventListener('abort', cut);
  });
}
