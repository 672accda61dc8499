// SPDX-License-Identifier: Apache-2.0
/** Who is signed in. The token itself lives in a cookie that scripts cannot read. */

import { tick } from 'svelte';

import { backoffMs } from '../share/net/backoff';
import { feed } from './feed.svelte';
import { walletConnect } from './walletconnect.svelte';
import { ApiError, get, onSignedOut, post, remove, setCsrf, type Schemas } from './api/client';

type Account = Schemas['AccountView'];
type View = Schemas['PageSessionView'];
type News = Schemas['BalanceNews'] | Schemas['WithdrawalNews'];

/** Whether somebody was signed in here when this browser last heard of it; no secret, and of no account. */
const KEPT = 'qubix-signed-in';
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 8_000;

class Session {
  state = $state<'unknown' | 'in' | 'out' | 'offline'>('unknown');
  /** Before the market has answered: what the page is laid out for. */
  readonly expected = kept();
  account = $state<Account | null>(null);
  /** Whose session ended by itself, and who may come back to what is on the page; "" otherwise. */
  awaited = $state('');

  #unwatch: (() => void) | null = null;
  #tries = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  /** Of what is asked or done about the session: a late answer to an earlier question says nothing any more. */
  #turn = 0;

  constructor() {
    onSignedOut(() => this.#leave());
    feed.signedOut = () => this.#leave();
    addEventListener('online', () => this.state === 'offline' && void this.load());
    // The cookie is of all tabs: in another one somebody has signed in or out.
    addEventListener('storage', ({ key }) => (key === KEPT || key === null) && void this.load());
  }

  /** While nothing answers, it is asked again. */
  async load(): Promise<void> {
    const turn = this.#turned();
    try {
      const view = await get<View>('/session');
      if (turn !== this.#turn) return;
      if (this.account && view.account?.account_id !== this.account.account_id) {
        // Nothing of the one before stays on the page.
        this.#leave();
        await tick();
        if (turn !== this.#turn) return;
      }
      this.#tries = 0;
      this.#take(view);
    } catch (problem) {
      if (turn !== this.#turn) return;
      const out = problem instanceof ApiError && (problem.status === 401 || problem.status === 403);
      if (out) this.#leave();
      else {
        // Whoever is known to be here goes on with what is on the page.
        if (this.state === 'unknown') this.state = 'offline';
        this.#retry = setTimeout(() => void this.load(), backoffMs(this.#tries, RETRY_FIRST_MS, RETRY_MAX_MS));
        this.#tries += 1;
      }
    }
  }

  async begin(token: string): Promise<void> {
    const view = await post<View>('/session', { token });
    this.#turned();
    this.#take(view);
  }

  async end(): Promise<void> {
    try {
      await remove<View>('/session');
    } catch (problem) {
      // It had ended already, elsewhere.
      if (!(problem instanceof ApiError) || problem.status !== 401) throw problem;
    }
    this.#turned();
    this.#leave();
    this.awaited = '';
    // Whoever sits here next has nothing to ask of this person's wallet.
    void walletConnect.disconnect().catch(() => undefined);
  }

  /** From here on a visitor, who sees what everybody may. */
  #leave(): void {
    const before = this.state;
    if (before === 'out') return;
    setCsrf('');
    this.#unwatch?.();
    this.#unwatch = null;
    this.awaited = this.account?.account_id ?? '';
    this.account = null;
    this.state = 'out';
    keep(false);
    if (before === 'in') feed.reconnect();
  }

  #turned(): number {
    clearTimeout(this.#retry);
    this.#turn += 1;
    return this.#turn;
  }

  #take({ account, csrf }: View): void {
    if (!account) return this.#leave();
    const before = this.state;
    setCsrf(csrf);
    this.account = account;
    this.state = 'in';
    keep(true);
    // The cookie goes with a connection that is made from now on.
    if (before === 'out' || before === 'offline') feed.reconnect();
    // Both balances move by themselves, on whatever page.
    this.#unwatch ??= feed.watch({ topic: 'account' }, (frame) => {
      const news = frame.data as News | null;
      // What is told to all of an account's tokens does not say what this one may.
      if (news?.about === 'balance' && this.account) this.account = { ...news.account, scopes: this.account.scopes };
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
