// SPDX-License-Identifier: Apache-2.0
/** A provider as tests/web holds it, without the page around it. No part of the market's pages. */

import { WorkerGpu } from '../src/share/gpu/client';
import { Provider } from '../src/share/net/provider';
import type { ProviderSettings, ProviderState } from '../src/share/net/types';

class Held {
  state: ProviderState = { phase: 'off', peerId: '', earned: 0, earnings: [] };
  /** In the order in which they came. */
  readonly phases: string[] = [];
  #provider: Provider | null = null;

  start(settings: ProviderSettings): void {
    this.#provider = new Provider(new WorkerGpu(), settings);
    this.#provider.state.subscribe((state) => {
      this.state = state;
      if (this.phases.at(-1) !== state.phase) this.phases.push(state.phase);
    });
    void this.#provider.start();
  }

  get provider(): Provider {
    if (!this.#provider) throw new Error('it is not started');
    return this.#provider;
  }
}

const held = new Held();
declare global {
  interface Window {
    sharing: Held;
  }
}
window.sharing = held;
