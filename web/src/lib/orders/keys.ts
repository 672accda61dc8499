// SPDX-License-Identifier: Apache-2.0
/**
 * This browser's key for an account's orders: Ed25519 by WebCrypto, kept in IndexedDB, one for each account, and readable
 * by no script. Having it is not enough: the account's list says whether it signs (docs/adr/0038).
 */

import { ApiError, get, post, type Schemas } from '../api/client';
import { deviceName } from '../device';
import { keys as words } from '../strings.keys';
import { extension, signForKey, type Wallet } from '../wallet';
import { hex, unhex } from '../../share/net/bytes';
import { NoStorage, Shelf } from '../../share/net/idb';
import { generate, identityOf, NoKey, type Identity } from '../../share/net/keys';
import { statement } from './statement';
import { keyRequest, keyRevocation, walletApproval } from './statements';

export type OrderKey = Schemas['OrderKeyView'];
export type BoundWallet = Schemas['WalletView'];
type Keys = Schemas['OrderKeysView'];

const shelf = (): Promise<Shelf<'keys'>> => Shelf.open('qubix-orders', { keys: undefined });

/** The one that this browser keeps for the account, whether it signs or not; null: none, or nothing can be kept. */
export async function held(accountId: string): Promise<Identity | null> {
  try {
    const pair = await (await shelf()).get<CryptoKeyPair>('keys', accountId);
    return pair ? await identityOf(pair) : null;
  } catch (problem) {
    if (problem instanceof NoStorage) return null;
    throw problem;
  }
}

/** The same, made now where there is none. Throws ApiError where this browser cannot make or keep one. */
async function own(accountId: string): Promise<Identity> {
  try {
    return await identityOf(await (await shelf()).keyPair('keys', accountId, generate));
  } catch (problem) {
    if (problem instanceof NoKey) throw new ApiError(0, 'no_key', words.noEd25519, words.noEd25519Next, '');
    if (problem instanceof NoStorage) throw new ApiError(0, 'no_storage', words.noStorage, words.noStorageNext, '');
    throw problem;
  }
}

export const list = (): Promise<Keys> => get<Keys>('/order-keys');
export const live = (key: OrderKey): boolean => key.revoked_ms == null;
export const isOf = (key: OrderKey, browser: Identity | null): boolean => browser !== null && key.public_key === hex(browser.publicKey);

/** The key asks to sign the account's orders: what another key or a wallet approves. Good for an hour. */
export async function request(accountId: string): Promise<string> {
  return hex(await statement(await own(accountId), (clockMs) => keyRequest(accountId, deviceName(), clockMs)));
}

/** `wallet` signs for it, as every key after the first needs it. Throws ApiError. */
export async function add(accountId: string, wallet: Wallet | null): Promise<Keys> {
  const asking = await request(accountId);
  const { publicKey } = await own(accountId);
  const signed = wallet ? await signForKey(wallet, 'add-order-key', hex(publicKey)) : null;
  return post<Keys>('/order-keys', { request: asking, wallet: signed });
}

/** Signed by this browser's key, or else by the wallet. What this browser kept of a key of its own goes, too. */
export async function revoke(accountId: string, key: OrderKey, by: Identity | null): Promise<Keys> {
  const path = `/order-keys/${key.public_key}/revoke`;
  const body = by
    ? { statement: hex(await statement(by, () => keyRevocation(accountId, unhex(key.public_key)))) }
    : { wallet: await signForKey(await extension(), 'revoke-order-key', key.public_key) };
  const left = await post<Keys>(path, body);
  if (isOf(key, await held(accountId))) await forget(accountId);
  return left;
}

/** Those that sign in to the account: whoever has a session of it binds one. */
export const signingWallets = async (): Promise<BoundWallet[]> =>
  (await get<Schemas['WalletsView']>('/wallets')).wallets.filter((one) => one.may_sign_in);

/** This browser's key says that this one adds and revokes keys, too. Which one is for its owner to say. */
export async function trustWallet(accountId: string, by: Identity, identity: string): Promise<void> {
  const said = hex(await statement(by, () => walletApproval(accountId, identity)));
  await post<Schemas['WalletsView']>(`/wallets/${identity}/approve`, { statement: said });
}

/** A key that was revoked never signs again: the next one is made anew. */
export async function forget(accountId: string): Promise<void> {
  await (await shelf()).change('keys', (store) => store.delete(accountId));
}
