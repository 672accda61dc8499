// SPDX-License-Identifier: Apache-2.0
/** What the dialog of WalletConnect says; loaded with it. */

export const words = {
  preparing: 'Asking the relay for a code',
  scan: 'Scan this with your Qubic wallet, or copy it there. It connects the wallet, and asks for nothing else yet.',
  code: 'The connection as a code',
  until: (time: string) => `Good until ${time}.`,
  copy: 'Copy the code',
  openWallet: 'Open Qubic Wallet',
  again: 'Make a new code',
  connectedWith: (wallet: string) => `Connected with ${wallet || 'your wallet'}`,
  which: 'Which account',
  asking: 'Confirm it in your wallet',
  askingLead: 'The request is waiting there. On this phone, open the wallet, then come back.',
  back: 'The wallet shows what it signs or pays: compare it with this page.',
  cancel: 'Cancel',
  tryNow: 'Try now',
};
