// SPDX-License-Identifier: Apache-2.0
/** Who is signed in. The token itself lives in a cookie that scripts cannot read. */

import { feed } from './feed.svelte';
import { walletConnect } from './walletconnect.svelte';
import { ApiError, get, onSignedOut, post, remove, setCsrf, type Schemas } from './api/client';

type Account = Schemas['AccountView'];
type View = Schemas['PageSessionView'];
type News = Schemas['BalanceNews'] | Schemas['WithdrawalNews'];

class Session {
  state = $state<'unknown' | 'in' | 'out' | 'offline'>('unknown');
  account = $state<Account | null>(null);

  #unwatch: (() => void) | null = null;

  constructor() {
    onSignedOut(() => this.#leave());
  }

  async load(): Promise<void> {
    try {
      this.#take(await get<View>('/session'));
    } catch (problem) {
      const out = problem instanceof ApiError && (problem.status === 401 || problem.status === 403);
      this.state = out ? 'out' : 'offline';
      if (out) this.account = null;
    }
  }

  async begin(token: string): Promise<void> {
    this.#take(await post<View>('/session', { token }));
  }

  async end(): Promise<void> {
    await remove<View>('/session');
    this.#leave();
    // Whoever sits here next has nothing to ask of this person's wallet.
    void walletConnect.disconnect().catch(() => undefined);
  }

  #leave(): void {
    setCsrf('');
    this.#unwatch?.();
    this.#unwatch = null;
    this.account = null;
    this.state = 'out';
  }

  #take(view: View): void {
    setCsrf(view.csrf);
    this.account = view.account;
    this.state = 'in';
    // Both balances move by themselves, on whatever page.
    this.#unwatch ??= feed.watch({ topic: 'account' }, (frame) => {
      const news = frame.data as News | null;
      // What is told to all of an account's tokens does not say what this one may.
      if (news?.about === 'balance') this.account = { ...news.account, scopes: view.account.scopes };
    });
  }
}

export const session = new Session();
