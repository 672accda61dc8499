// SPDX-License-Identifier: Apache-2.0
/** A Qubic wallet in the browser signs and pays; this page never sees a seed, and never asks for one. */

import { ApiError, post, type Schemas } from './api/client';
import { deviceName } from './device';
import { t } from './strings';

interface Extension {
  connect(): Promise<unknown>;
  getAccount(): Promise<{ identity: string } | null>;
  signMessage(text: string): Promise<{ signatureHex: string }>;
  sendTransaction(payment: { toIdentity: string; amount: number }): Promise<{ txId: string; targetTick: number }>;
}
declare global {
  interface Window {
    qubic?: Extension;
  }
}

export const hasExtension = (): boolean => typeof window.qubic?.signMessage === 'function';

/** The extension, connected, with the account that its user chose. */
async function connected(): Promise<{ wallet: Extension; identity: string }> {
  const wallet = window.qubic;
  if (!wallet) throw new ApiError(0, 'no_wallet', t.wallet.noExtension, '', '');
  try {
    await wallet.connect();
    const identity = (await wallet.getAccount())?.identity ?? '';
    return { wallet, identity };
  } catch (problem) {
    throw refusal(problem);
  }
}

/** What a wallet says when it does not do what it is asked, in our words: nothing was signed or paid. */
function refusal(problem: unknown): ApiError {
  const { code, message } = (problem ?? {}) as { code?: string | number; message?: string };
  if (code === 'USER_REJECTED') return new ApiError(0, 'rejected', t.wallet.rejected, t.wallet.rejectedNext, '');
  return new ApiError(0, String(code ?? 'wallet'), message || t.wallet.silent, t.wallet.silentNext, '');
}

/** Has the wallet sign the market's challenge: the body that proves it. */
async function proved(purpose: Schemas['ChallengeBody']['purpose'], order_key: string | null = null): Promise<Schemas['SignedBody']> {
  const { wallet, identity } = await connected();
  const challenge = await post<Schemas['ChallengeView']>('/wallet/challenge', { identity, purpose, order_key });
  try {
    const { signatureHex } = await wallet.signMessage(challenge.text);
    return { identity, text: challenge.text, signature: signatureHex.toLowerCase(), scheme: 'raw', name: deviceName() };
  } catch (problem) {
    throw refusal(problem);
  }
}

/** The session's token. */
export const signInByExtension = async (): Promise<string> =>
  (await post<Schemas['SignedInView']>('/wallet/sign-in', await proved('sign-in'))).token;

/** From then on the wallet signs in to this account, and may be paid. */
export const bindByExtension = async (): Promise<Schemas['WalletsView']> =>
  post<Schemas['WalletsView']>('/wallet/bind', await proved('bind'));

/** The wallet says that this key may sign the account's orders, or may not any more. */
export const signForKey = (purpose: 'add-order-key' | 'revoke-order-key', key: string): Promise<Schemas['SignedBody']> => proved(purpose, key);

/** Asks the wallet to pay; the transaction and the tick that it aims at. */
export async function pay(toIdentity: string, amount: number): Promise<{ txId: string; targetTick: number }> {
  const { wallet } = await connected();
  try {
    return await wallet.sendTransaction({ toIdentity, amount });
  } catch (problem) {
    throw refusal(problem);
  }
}
