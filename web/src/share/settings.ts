// SPDX-License-Identifier: Apache-2.0
/** What the person chose, kept by this browser. */

const NAME = 'qubix.share';
export const THROTTLE_MIN = 0.1;

export interface Settings {
  /** null: what the market suggests. */
  rateQuPerH: number | null;
  /** The most of the card's time, over 0 to 1. */
  throttle: number;
}

export function read(): Settings {
  const told = stored();
  const { rateQuPerH, throttle } = told;
  return {
    rateQuPerH: typeof rateQuPerH === 'number' && Number.isSafeInteger(rateQuPerH) && rateQuPerH >= 0 ? rateQuPerH : null,
    throttle: typeof throttle === 'number' && throttle >= THROTTLE_MIN && throttle <= 1 ? throttle : 1,
  };
}

export function write(change: Partial<Settings>): void {
  try {
    localStorage.setItem(NAME, JSON.stringify({ ...read(), ...change }));
  } catch {
    // Nothing is kept here: it holds until the page is closed.
  }
}

function stored(): Record<string, unknown> {
  try {
    const told: unknown = JSON.parse(localStorage.getItem(NAME) ?? '{}');
    return typeof told === 'object' && told !== null ? (told as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
