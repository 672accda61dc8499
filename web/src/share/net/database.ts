// SPDX-License-Identifier: Apache-2.0
/** The journal in IndexedDB. */

import type { Bytes } from './bytes';
import { Shelf } from './idb';
import type { Journal, Market, Saved } from './journal';
import { BEGINNING, type Place } from './messages';
import type { Earning } from './types';

const NAME = 'qubix-provider';
const STORES = { kept: undefined, attempts: 'attemptId', earnings: 'attemptId' };

export class Database implements Journal {
  readonly #shelf: Shelf<keyof typeof STORES>;

  private constructor(shelf: Shelf<keyof typeof STORES>) {
    this.#shelf = shelf;
  }

  /** Throws NoStorage. */
  static async open(): Promise<Database> {
    return new Database(await Shelf.open(NAME, STORES));
  }

  keyPair(make: () => Promise<CryptoKeyPair>): Promise<CryptoKeyPair> {
    return this.#shelf.keyPair('kept', 'key', make);
  }

  async market(): Promise<Market | null> {
    return (await this.#shelf.get<Market>('kept', 'market')) ?? null;
  }

  setMarket(market: Market): Promise<void> {
    return this.#shelf.change('kept', (store) => store.put(market, 'market'));
  }

  attempts(): Promise<Saved[]> {
    return this.#shelf.all<Saved>('attempts');
  }

  save(attempt: Saved): Promise<void> {
    return this.#shelf.change('attempts', (store) => store.put(attempt));
  }

  forget(attemptId: string): Promise<void> {
    return this.#shelf.change('attempts', (store) => store.delete(attemptId));
  }

  earnings(): Promise<Earning[]> {
    return this.#shelf.all<Earning>('earnings');
  }

  async earn(earning: Earning, settlement: Bytes): Promise<boolean> {
    if (await this.#shelf.get<Earning>('earnings', earning.attemptId)) return false;
    await this.#shelf.change('earnings', (store) => store.put({ ...earning, settlement }));
    return true;
  }

  async toldUpTo(): Promise<Place> {
    return (await this.#shelf.get<Place>('kept', 'toldUpTo')) ?? BEGINNING;
  }

  setToldUpTo(place: Place): Promise<void> {
    return this.#shelf.change('kept', (store) => store.put(place, 'toldUpTo'));
  }

  async incarnation(): Promise<number> {
    return (await this.#shelf.get<number>('kept', 'incarnation')) ?? 0;
  }

  setIncarnation(incarnation: number): Promise<void> {
    return this.#shelf.change('kept', (store) => store.put(incarnation, 'incarnation'));
  }
}
