// SPDX-License-Identifier: Apache-2.0
/** WalletConnect as the pages see it. Its client is loaded when somebody asks for it, or is connected already. */

import type { Schemas } from './api/client';
import { network } from './network';
import type { LineState } from './walletconnect/relay';
import type { Session } from './walletconnect/rules';
import type { Started } from './walletconnect/start';

const NAME = 'qubix.walletconnect';
/** The line stays for a moment, for what is still to be said. */
const LINGER_MS = 60_000;

class WalletConnect {
  /** null: this market does not offer it, or has not said yet. */
  offer = $state.raw<Schemas['NetworkView'] | null>(null);
  session = $state.raw<Session | null>(null);
  line = $state<LineState>('closed');

  #started: Promise<Started> | null = null;
  #holders = 0;
  #linger: ReturnType<typeof setTimeout> | undefined;

  async load(): Promise<void> {
    const view = await network().catch(() => null);
    this.offer = view?.walletconnect_project_id ? view : null;
  }

  /** Whether a session may be kept here: its client is not loaded to find out. */
  get remembered(): boolean {
    try {
      return localStorage.getItem(NAME)?.includes('"topic"') ?? false;
    } catch {
      return false;
    }
  }

  start(): Promise<Started> {
    const { offer } = this;
    if (!offer) return Promise.reject(new Error('WalletConnect is not offered'));
    this.#started ??= import('./walletconnect/start').then(
      ({ start }) =>
        start(offer.walletconnect_relay, offer.walletconnect_project_id, `QUBIX (${location.host})`, {
          line: (state) => (this.line = state),
          session: (session) => (this.session = session),
        }),
      (problem: unknown) => {
        this.#started = null;
        throw problem;
      },
    );
    return this.#started;
  }

  /** Keeps the line to the relay open until the function that it gives is called. */
  async hold(): Promise<() => void> {
    const { relay } = await this.start();
    clearTimeout(this.#linger);
    this.#holders += 1;
    relay.open();
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#holders -= 1;
      clearTimeout(this.#linger);
      if (!this.#holders) this.#linger = setTimeout(() => !this.#holders && relay.close(), LINGER_MS);
    };
  }

  /** Over here at once, and in the wallet when the relay hears of it. */
  async disconnect(): Promise<void> {
    if (!this.session && !this.remembered) return;
    await this.load();
    if (!this.offer) return;
    const release = await this.hold();
    await (await this.start()).client.disconnect();
    release();
  }
}

export const walletConnect = new WalletConnect();
