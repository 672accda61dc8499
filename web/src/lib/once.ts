// SPDX-License-Identifier: Apache-2.0
/** A request that must not be carried out twice, however often a person sends it (the API's Idempotency-Key). */

import { ApiError } from './api/client';

interface Sent<B> {
  form: string;
  body: B;
  key: string;
}

/** One form's requests. While nobody knows what became of one, the same form sends the very same again. */
export class Once<B> {
  #sent: Sent<B> | null = null;

  /** `form` is what the person gave: the rest of `body`, such as a price of now, may have changed since. */
  async send<A>(form: unknown, body: B, post: (body: B, key: string) => Promise<A>): Promise<A> {
    const said = JSON.stringify(form);
    if (this.#sent?.form !== said) this.#sent = { form: said, body, key: crypto.randomUUID() };
    try {
      const answer = await post(this.#sent.body, this.#sent.key);
      this.#sent = null;
      return answer;
    } catch (problem) {
      if (problem instanceof ApiError && refused(problem)) this.#sent = null;
      throw problem;
    }
  }
}

/** The market answered, and made nothing of it. */
const refused = ({ status }: ApiError): boolean => status >= 400 && status < 500;
