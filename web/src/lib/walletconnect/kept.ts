// SPDX-License-Identifier: Apache-2.0
/** What this browser keeps of WalletConnect: the key by which the relay knows it, and the session. */

import { clientKey, type ClientKey } from './crypto';
import { keptSession, type Session } from './rules';

export const NAME = 'qubix.walletconnect';
const LOCK = 'qubix.walletconnect';

function read(): Record<string, unknown> {
  try {
    const told: unknown = JSON.parse(localStorage.getItem(NAME) ?? '{}');
    return typeof told === 'object' && told !== null ? (told as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

function write(change: Record<string, unknown>): void {
  try {
    localStorage.setItem(NAME, JSON.stringify({ ...read(), ...change }));
  } catch {
    // Nothing is kept here: it holds until the page is closed.
  }
}

export const session = (): Session | null => keptSession(read()['session'], Math.floor(Date.now() / 1000));
export const keep = (one: Session | null): void => write({ session: one });

/**
 * The relay hands a message to each client once. The first page of a browser is always the same client, so that it
 * gets what came while none was open; a second page beside it is a client of its own. Throws WalletConnectError.
 */
export async function key(): Promise<ClientKey> {
  if (!(await first())) return clientKey();
  const { x, d } = read();
  if (typeof x === 'string' && typeof d === 'string') return { x, d };
  const made = await clientKey();
  write({ ...made });
  return made;
}

/** Whether this is the only page, or the one that was there before the others; it stays so until it is closed. */
let asked: Promise<boolean> | null = null;
function first(): Promise<boolean> {
  asked ??= new Promise<boolean>((done) => {
    if (!navigator.locks) return done(true);
    const held = (lock: Lock | null): Promise<void> | undefined => {
      done(lock !== null);
      return lock ? new Promise(() => undefined) : undefined;
    };
    void navigator.locks.request(LOCK, { ifAvailable: true }, held).catch(() => done(true));
  });
  return asked;
}
