// SPDX-License-Identifier: Apache-2.0
/** IndexedDB with promises. A private key lies in it as the browser's own object, which no script can read. */

/** This browser keeps nothing for the page. */
export class NoStorage extends Error {}

/** `stores`: each with the field that its records are found by, or none, where they have a key of their own. */
export class Shelf<Store extends string> {
  readonly #db: IDBDatabase;

  private constructor(db: IDBDatabase) {
    this.#db = db;
  }

  /** Throws NoStorage. */
  static async open<Store extends string>(name: string, stores: Record<Store, string | undefined>): Promise<Shelf<Store>> {
    if (globalThis.indexedDB === undefined) throw new NoStorage('there is no IndexedDB');
    try {
      const asked = indexedDB.open(name, 1);
      asked.onupgradeneeded = () => {
        for (const [store, keyPath] of Object.entries<string | undefined>(stores)) {
          asked.result.createObjectStore(store, keyPath ? { keyPath } : {});
        }
      };
      return new Shelf<Store>(await done(asked));
    } catch (problem) {
      throw new NoStorage(String(problem));
    }
  }

  /** The key pair of that name, or what `make` gives, kept from now on. */
  async keyPair(store: Store, name: string, make: () => Promise<CryptoKeyPair>): Promise<CryptoKeyPair> {
    const kept = await this.get<CryptoKeyPair>(store, name);
    if (kept) return kept;
    const made = await make();
    // Another tab may have made one meanwhile: the first one stands.
    const added = await this.change(store, (one) => one.add(made, name)).then(
      () => true,
      () => false,
    );
    return added ? made : ((await this.get<CryptoKeyPair>(store, name)) ?? made);
  }

  get<T>(store: Store, key: string): Promise<T | undefined> {
    return done(this.#db.transaction(store).objectStore(store).get(key)) as Promise<T | undefined>;
  }

  all<T>(store: Store): Promise<T[]> {
    return done(this.#db.transaction(store).objectStore(store).getAll()) as Promise<T[]>;
  }

  /** Resolves when it is on disk, as far as the browser tells. */
  change(store: Store, change: (store: IDBObjectStore) => unknown): Promise<void> {
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
