// SPDX-License-Identifier: Apache-2.0
/** One thing of the account's, kept as it is now: its snapshot first, then each change. */

import { feed } from './feed.svelte';

export class Live<T> {
  value = $state.raw<T | null>(null);

  /** Until the function that it gives is called. */
  watch(topic: string): () => void {
    this.value = null;
    return feed.watch({ topic }, (frame) => {
      if (frame.kind === 'snapshot' || frame.kind === 'delta') this.value = frame.data as T;
    });
  }
}
