// SPDX-License-Identifier: Apache-2.0
/** The journal in IndexedDB. The private key lies there as the browser's own object, which no script can read. */

import type { Bytes } from './bytes';
import type { Journal, Market, Saved } from './journal';
import { BEGINNING, type Place } from './messages';
import type { Earning } from './types';

const NAME = 'qubix-provider';
const STORES = { kept: undefined, attempts: 'attemptId', earnings: 'attemptId' } as const;
type Store = keyof typeof STORES;

/** This browser keeps nothing for the page. */
export class NoStorage extends Error {}

export class Database implements Journal {
  readonly #db: IDBDatabase;

  private constructor(db: IDBDatabase) {
    this.#db = db;
  }

  /** Throws NoStorage. */
  static async open(): Promise<Database> {
    if (globalThis.indexedDB === undefined) throw new NoStorage('there is no IndexedDB');
    try {
      const asked = indexedDB.open(NAME, 1);
      asked.onupgradeneeded = () => {
        for (const [store, keyPath] of Object.entries(STORES)) {
          asked.result.createObjectStore(store, keyPath ? { keyPath } : {});
        }
      };
      return new Database(await done(asked));
    } catch (problem) {
      throw new NoStorage(String(problem));
    }
  }

  async keyPair(make: () => Promise<CryptoKeyPair>): Promise<CryptoKeyPair> {
    const kept = await this.#get<CryptoKeyPair>('kept', 'key');
    if (kept) return kept;
    const made = await make();
    // Another tab may have made one meanwhile: the first one stands.
    const added = await this.#change('kept', (store) => store.add(made, 'key')).then(
      () => true,
      () => false,
    );
    return added ? made : ((await this.#get<CryptoKeyPair>('kept', 'key')) ?? made);
  }

  async market(): Promise<Market | null> {
    return (await this.#get<Market>('kept', 'market')) ?? null;
  }

  setMarket(market: Market): Promise<void> {
    return this.#change('kept', (store) => store.put(market, 'market'));
  }

  attempts(): Promise<Saved[]> {
    return this.#all<Saved>('attempts');
  }

  save(attempt: Saved): Promise<void> {
    return this.#change('attempts', (store) => store.put(attempt));
  }

  forget(attemptId: string): Promise<void> {
    return this.#change('attempts', (store) => store.delete(attemptId));
  }

  earnings(): Promise<Earning[]> {
    return this.#all<Earning>('earnings');
  }

  async earn(earning: Earning, settlement: Bytes): Promise<boolean> {
    if (await this.#get<Earning>('earnings', earning.attemptId)) return false;
    await this.#change('earnings', (store) => store.put({ ...earning, settlement }));
    return true;
  }

  async toldUpTo(): Promise<Place> {
    return (await this.#get<Place>('kept', 'toldUpTo')) ?? BEGINNING;
  }

  setToldUpTo(place: Place): Promise<void> {
    return this.#change('kept', (store) => store.put(place, 'toldUpTo'));
  }

  async incarnation(): Promise<number> {
    return (await this.#get<number>('kept', 'incarnation')) ?? 0;
  }

  setIncarnation(incarnation: number): Promise<void> {
    return this.#change('kept', (store) => store.put(incarnation, 'incarnation'));
  }

  #get<T>(store: Store, key: string): Promise<T | undefined> {
    return done(this.#db.transaction(store).objectStore(store).get(key)) as Promise<T | undefined>;
  }

  #all<T>(store: Store): Promise<T[]> {
    return done(this.#db.transaction(store).objectStore(store).getAll()) as Promise<T[]>;
  }

  /** Resolves when it is on disk, as far as the browser tells. */
  #change(store: Store, change: (store: IDBObjectStore) => unknown): Promise<void> {
    return new Promise((resolve, reject) => {
      const step = this.#db.transaction(store, 'readwrite', { durability: 'strict' });
      step.oncomplete = () => resolve();
      step.onerror = step.onabort = () => reject(new NoStorage(String(step.error)));
      change(step.objectStore(store));
    });
  }
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error('the browser does not say why'));
  });
}
