// SPDX-License-Identifier: Apache-2.0
/** A Qubic wallet signs and pays; this page never sees a seed, and never asks for one. */

import { ApiError, post, type Schemas } from './api/client';
import { deviceName } from './device';
import { t } from './strings';
import { WalletConnectError } from './walletconnect/errors';

/** A wallet with the account that its user chose: the extension, or one that WalletConnect reaches. */
export interface Wallet {
  readonly identity: string;
  /** What of a text is hashed: see `Scheme` of the protocol. */
  readonly scheme: Schemas['SignedBody']['scheme'];
  /** The signature, hexadecimal. */
  sign(text: string): Promise<string>;
  pay(toIdentity: string, amount: number): Promise<Payment>;
}
export interface Payment {
  readonly txId: string;
  readonly targetTick: number;
}
interface Extension {
  connect(): Promise<unknown>;
  getAccount(): Promise<{ identity: string } | null>;
  signMessage(text: string): Promise<{ signatureHex: string }>;
  sendTransaction(payment: { toIdentity: string; amount: number }): Promise<Payment>;
}
declare global {
  interface Window {
    qubic?: Extension;
  }
}

export const hasExtension = (): boolean => typeof window.qubic?.signMessage === 'function';

/** The extension, connected. */
export async function extension(): Promise<Wallet> {
  const wallet = window.qubic;
  if (!wallet) throw new ApiError(0, 'no_wallet', t.wallet.noExtension, '', '');
  try {
    await wallet.connect();
    return {
      identity: (await wallet.getAccount())?.identity ?? '',
      scheme: 'raw',
      sign: async (text) => (await wallet.signMessage(text)).signatureHex.toLowerCase(),
      pay: (toIdentity, amount) => wallet.sendTransaction({ toIdentity, amount }),
    };
  } catch (problem) {
    throw refusal(problem);
  }
}

/** What a wallet says when it does not do what it is asked, in our words. */
export function refusal(problem: unknown): ApiError {
  if (problem instanceof ApiError) return problem;
  if (problem instanceof WalletConnectError) {
    const [message, remedy] = t.wallet.failures[problem.failure];
    const said = problem.failure === 'wallet' && problem.message !== 'wallet' ? t.wallet.says(problem.message) : message;
    return new ApiError(0, problem.failure, said, remedy, '');
  }
  const { code, message } = (problem ?? {}) as { code?: string | number; message?: string };
  if (code === 'USER_REJECTED') return new ApiError(0, 'rejected', t.wallet.rejected, t.wallet.rejectedNext, '');
  return new ApiError(0, String(code ?? 'wallet'), message || t.wallet.silent, t.wallet.silentNext, '');
}

/** Has the wallet sign the market's challenge: the body that proves it. */
async function proved(wallet: Wallet, purpose: Schemas['ChallengeBody']['purpose'], order_key: string | null = null): Promise<Schemas['SignedBody']> {
  const { identity, scheme } = wallet;
  const { text } = await post<Schemas['ChallengeView']>('/wallet/challenge', { identity, purpose, order_key });
  try {
    return { identity, text, signature: await wallet.sign(text), scheme, name: deviceName() };
  } catch (problem) {
    throw refusal(problem);
  }
}

/** The session's token. */
export const signIn = async (wallet: Wallet): Promise<string> =>
  (await post<Schemas['SignedInView']>('/wallet/sign-in', await proved(wallet, 'sign-in'))).token;

/** From then on the wallet signs in to this account, and may be paid. */
export const bind = async (wallet: Wallet): Promise<Schemas['WalletsView']> =>
  post<Schemas['WalletsView']>('/wallet/bind', await proved(wallet, 'bind'));

/** The wallet says that this key may sign the account's orders, or may not any more. */
export const signForKey = (wallet: Wallet, purpose: 'add-order-key' | 'revoke-order-key', key: string): Promise<Schemas['SignedBody']> =>
  proved(wallet, purpose, key);

/** Asks the wallet to pay; the transaction and the tick that it aims at. */
export async function pay(wallet: Wallet, toIdentity: string, amount: number): Promise<Payment> {
  try {
    return await wallet.pay(toIdentity, amount);
  } catch (problem) {
    throw refusal(problem);
  }
}
