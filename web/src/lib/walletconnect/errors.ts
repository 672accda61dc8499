// SPDX-License-Identifier: Apache-2.0

export type Failure =
  /** The person said no. */
  | 'rejected'
  /** The wallet has another request open. */
  | 'busy'
  /** Nobody answered in time; what was asked for may still be done later. */
  | 'unanswered'
  /** The connection with the wallet is over. */
  | 'ended'
  /** The wallet answered with what cannot be right. */
  | 'wrong'
  /** The wallet could not do it, and says why. */
  | 'wallet'
  /** The relay does not answer. */
  | 'away'
  /** The relay does not serve this market. */
  | 'refused'
  /** This browser or this address has not the cryptography. */
  | 'unsupported';

export class WalletConnectError extends Error {
  constructor(
    readonly failure: Failure,
    message = '',
  ) {
    super(message || failure);
  }
}
