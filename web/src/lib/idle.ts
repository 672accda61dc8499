// SPDX-License-Identifier: Apache-2.0

const SOON_MS = 200;

/** Once the browser has nothing else to do; where it does not tell, a little later. */
export const idle = (): Promise<void> =>
  new Promise((resolve) => {
    if ('requestIdleCallback' in window) requestIdleCallback(() => resolve());
    else setTimeout(resolve, SOON_MS);
  });
