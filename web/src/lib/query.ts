// SPDX-License-Identifier: Apache-2.0
/**
 * The query line and the filters are one thing in two forms. The server reads the language; here a line of plain terms
 * joined by "and" is taken apart, so that a filter can find and change its own.
 */

export interface Term {
  field: string;
  op: string;
  value: string;
  start: number;
  end: number;
}

const TERM = /\s*(?:and\s+)?([a-z_]+)\s*(<=|>=|!=|==|=|<|>|\s+in\s+|\s+notin\s+)\s*("[^"]*"|\[[^\]]*\]|[^\s()]+)/giy;

/** null: the line is more than a row of terms (or, brackets, free text), and only the line itself can show it. */
export function terms(text: string): Term[] | null {
  const found: Term[] = [];
  let at = 0;
  while (text.slice(at).trim()) {
    TERM.lastIndex = at;
    const match = TERM.exec(text);
    if (!match) return null;
    found.push({
      field: (match[1] ?? '').toLowerCase(),
      op: (match[2] ?? '').trim().toLowerCase(),
      value: match[3] ?? '',
      start: at,
      end: TERM.lastIndex,
    });
    at = TERM.lastIndex;
  }
  return found;
}

export const quoted = (value: string): string => (/^[\w.+%-]+$/.test(value) ? value : `"${value.replaceAll('"', '')}"`);
export const plain = (value: string): string => value.replace(/^"(.*)"$/, '$1');

export function valueOf(found: Term[] | null, field: string, op: string): string {
  const term = found?.find((one) => one.field === field && one.op === op);
  return term ? plain(term.value) : '';
}

/** The line with this filter set, or taken away by "". */
export function withTerm(text: string, field: string, op: string, value: string): string {
  const term = terms(text)?.find((one) => one.field === field && one.op === op);
  const fresh = value ? `${field}${op}${quoted(value)}` : '';
  const changed = term ? `${text.slice(0, term.start)} ${fresh}${text.slice(term.end)}` : `${text} ${fresh}`;
  return changed.replace(/^\s*and\s+/i, '').replace(/\s+/g, ' ').trim();
}
