// SPDX-License-Identifier: Apache-2.0

/** The wait before another try after so many failures in a row: it doubles, and not everybody comes back at one moment. */
export const backoffMs = (failures: number, firstMs: number, mostMs: number): number =>
  Math.min(mostMs, firstMs * 2 ** failures) * (0.5 + Math.random() / 2);
