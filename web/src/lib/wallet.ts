// SPDX-License-Identifier: Apache-2.0
/** A Qubic wallet in the browser signs; this page never sees a seed, and never asks for one. */

import { post, type Schemas } from './api/client';
import { deviceName } from './device';

interface Extension {
  connect(): Promise<unknown>;
  getAccount(): Promise<{ identity: string } | null>;
  signMessage(text: string): Promise<{ signatureHex: string }>;
}
declare global {
  interface Window {
    qubic?: Extension;
  }
}

export const hasExtension = (): boolean => typeof window.qubic?.signMessage === 'function';

/** Asks the extension to sign the market's challenge; the session's token. Its own refusals are thrown as they are. */
export async function signInByExtension(): Promise<string> {
  const wallet = window.qubic;
  if (!wallet) throw new Error('no extension');
  await wallet.connect();
  const identity = (await wallet.getAccount())?.identity ?? '';
  const challenge = await post<Schemas['ChallengeView']>('/wallet/challenge', { identity });
  const { signatureHex } = await wallet.signMessage(challenge.text);
  const signed = { identity, text: challenge.text, signature: signatureHex.toLowerCase(), scheme: 'raw' };
  const found = await post<Schemas['SignedInView']>('/wallet/sign-in', { ...signed, name: deviceName() });
  return found.token;
}
