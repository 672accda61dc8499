// SPDX-License-Identifier: Apache-2.0
/** Who is signed in. The token itself lives in a cookie that scripts cannot read. */

import { feed } from './feed.svelte';
import { walletConnect } from './walletconnect.svelte';
import { ApiError, get, onSignedOut, post, remove, setCsrf, type Schemas } from './api/client';

type Account = Schemas['AccountView'];
type View = Schemas['PageSessionView'];
type News = Schemas['BalanceNews'] | Schemas['WithdrawalNews'];

/** Whether somebody was signed in here when this browser last heard of it; no secret, and of no account. */
const KEPT = 'qubix-signed-in';

class Session {
  state = $state<'unknown' | 'in' | 'out' | 'offline'>('unknown');
  /** Before the market has answered: what the page is laid out for. */
  readonly expected = kept();
  account = $state<Account | null>(null);

  #unwatch: (() => void) | null = null;

  constructor() {
    onSignedOut(() => this.#leave());
    feed.signedOut = () => this.#leave();
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
    const view = await post<View>('/session', { token });
    // The cookie goes with a connection that is made from now on.
    feed.reconnect();
    this.#take(view);
  }

  async end(): Promise<void> {
    await remove<View>('/session');
    this.#leave();
    // Whoever sits here next has nothing to ask of this person's wallet.
    void walletConnect.disconnect().catch(() => undefined);
  }

  /** From here on a visitor, who sees what everybody may. */
  #leave(): void {
    if (this.state === 'out') return;
    setCsrf('');
    this.#unwatch?.();
    this.#unwatch = null;
    this.account = null;
    this.state = 'out';
    keep(false);
    feed.reconnect();
  }

  #take({ account, csrf }: View): void {
    setCsrf(csrf);
    this.account = account;
    this.state = account ? 'in' : 'out';
    keep(account !== null);
    if (!account) return;
    // Both balances move by themselves, on whatever page.
    this.#unwatch ??= feed.watch({ topic: 'account' }, (frame) => {
      const news = frame.data as News | null;
      // What is told to all of an account's tokens does not say what this one may.
      if (news?.about === 'balance') this.account = { ...news.account, scopes: account.scopes };
    });
  }
}

function kept(): boolean {
  try {
    return localStorage.getItem(KEPT) !== null;
  } catch {
    return false;
  }
}

function keep(signedIn: boolean): void {
  try {
    if (signedIn) localStorage.setItem(KEPT, '1');
    else localStorage.removeItem(KEPT);
  } catch {
    // Nothing is kept in this browser: the page is laid out for a visitor first.
  }
}

export const session = new Session();
