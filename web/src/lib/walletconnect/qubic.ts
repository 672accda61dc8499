// SPDX-License-Identifier: Apache-2.0
/** Qubic's wallets over WalletConnect: their methods (qubic/wallet-app, walletconnect.md), as one of the page's wallets. */

import { hex, unbase64 } from '../../share/net/bytes';
import type { Wallet } from '../wallet';
import type { Client } from './client';
import { WalletConnectError } from './errors';
import { text, told, type Account } from './rules';

const SIGNATURE = 64;
const TRANSACTION = /^[a-z]{60}$/;
const DEEP_LINK = 'qubic-wallet://';

export const methods = (pays: boolean): string[] => [
  'qubic_requestAccounts',
  'qubic_sign',
  ...(pays ? ['qubic_sendQubic'] : []),
];

/** Opens the wallet on this phone: with a code to pair by, or to what it was asked. */
export const openLink = (uri = ''): string => DEEP_LINK + (uri ? `pairwc/${uri}` : 'open');

export function walletOf(client: Client, identity: string, signal: AbortSignal): Wallet {
  const ask = async (method: string, params: object): Promise<Record<string, unknown>> =>
    ((await client.request(method, { from: identity, ...params }, signal)) ?? {}) as Record<string, unknown>;
  return {
    identity,
    scheme: 'prefixed',
    sign: async (message) => signatureOf(await ask('qubic_sign', { message })),
    pay: async (to, amount) => {
      const { transactionId, tick } = await ask('qubic_sendQubic', { to, amount });
      if (!TRANSACTION.test(text(transactionId)) || !Number.isSafeInteger(tick)) throw new WalletConnectError('wrong');
      return { txId: text(transactionId), targetTick: Number(tick) };
    },
  };
}

function signatureOf({ signature }: Record<string, unknown>): string {
  try {
    const bytes = unbase64(text(signature));
    if (bytes.length === SIGNATURE) return hex(bytes);
  } catch {
    // It is no base64.
  }
  throw new WalletConnectError('wrong');
}

/** Whom the wallet can sign for. It answers without asking its owner; until it does, what the session names holds. */
export async function accountsOf(client: Client, signal: AbortSignal): Promise<Account[]> {
  const found = told(await client.request('qubic_requestAccounts', {}, signal).catch(() => null));
  return found.length ? found : named(client);
}

export const named = (client: Client): Account[] =>
  (client.session?.accounts ?? []).map((identity) => ({ identity, name: '' }));
