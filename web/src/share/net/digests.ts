// SPDX-License-Identifier: Apache-2.0
/** Digests of structured values: SHA-256 of a canonical encoding, as `qubix_protocol.digests` makes them. */

import { concat, sha256, utf8, type Bytes } from './bytes';
import { inputFields, link, type InputRef, type Link } from './messages';
import { encode, type Decoded } from './msgpack';

export const ZERO = new Uint8Array(32);

const byText = (one: string, other: string): number => (one < other ? -1 : one > other ? 1 : 0);
const of = (context: string, body: Bytes): Promise<Bytes> => sha256(concat(utf8(`${context}\0`), body));

/** Of a kernel's parameters as the assignment brought them: order does not matter, 1 and 1.0 differ. */
export function ofParams(params: { [name: string]: Decoded }): Promise<Bytes> {
  const sorted = Object.entries(params).sort(([one], [other]) => byText(one, other));
  return of('qubix/params/1', encode(Object.fromEntries(sorted)));
}

export function ofInputs(inputs: InputRef[]): Promise<Bytes> {
  const sorted = [...inputs].sort((one, other) => byText(one.name, other.name));
  return of('qubix/inputs/1', encode(sorted.map(inputFields)));
}

/** It covers the link's predecessor, hence the whole chain before it. */
export const ofLink = (one: Link): Promise<Bytes> => of('qubix/link/1', encode(link(one)));
