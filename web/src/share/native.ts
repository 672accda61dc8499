// SPDX-License-Identifier: Apache-2.0
/** Which system this is, and the pairing under way in this tab. */

export const SYSTEMS = ['linux', 'macos', 'windows'] as const;
export type System = (typeof SYSTEMS)[number];
const PAIRING = 'qubix.share.pairing';

/** Linux where it is none of them, such as a phone: the file is for another machine then. */
export function systemHere(agent = navigator.userAgent): System {
  if (/windows/i.test(agent)) return 'windows';
  return /mac os x|macintosh/i.test(agent) && !/iphone|ipad/i.test(agent) ? 'macos' : 'linux';
}

/** "" when there is none. It survives a reload. */
export const open = (): string => kept((storage) => storage.getItem(PAIRING)) ?? '';
export const remember = (id: string): void => kept((storage) => storage.setItem(PAIRING, id));
export const forget = (): void => kept((storage) => storage.removeItem(PAIRING));

function kept<T>(act: (storage: Storage) => T): T | undefined {
  try {
    return act(sessionStorage);
  } catch {
    return undefined;
  }
}
