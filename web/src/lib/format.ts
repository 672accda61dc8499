// SPDX-License-Identifier: Apache-2.0
/** Numbers and times as people read them; one spelling everywhere. */

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const one = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const GIB = 1024 ** 3;

export const count = (value: number): string => whole.format(value);
export const decimal = (value: number): string => one.format(value);
export const qu = (value: number): string => `${whole.format(value)} QU`;
export const gib = (bytes: number): string => (bytes ? `${one.format(bytes / GIB)} GiB` : '–');
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
/** Of large numbers, what people compare: 25.6M. */
export const about = (value: number): string => compact.format(value);

/** Bytes in the unit that keeps the number short. */
export function size(bytes: number): string {
  const at = bytes < 1024 ? 0 : Math.min(3, Math.floor(Math.log2(bytes) / 10));
  return `${one.format(bytes / 1024 ** at)} ${['bytes', 'KiB', 'MiB', 'GiB'][at]}`;
}

export const percent = (share: number): string => `${one.format(share * 100)} %`;
export const rate = (bytesPerS: number): string => (bytesPerS ? `${one.format(bytesPerS / 125_000)} Mbit/s` : '–');

/** GFLOP/s in the unit that keeps the number short. */
export function gflops(value: number): string {
  if (!value) return '–';
  return value >= 1000 ? `${one.format(value / 1000)} TFLOP/s` : `${one.format(value)} GFLOP/s`;
}

export function age(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86_400)} d`;
}

/** A CPU is called one wherever it may stand beside GPUs. */
export const titled = (device: { kind: string; model: string }): string =>
  device.kind === 'cpu' ? `${device.model} (CPU)` : device.model;

/** The ends of a long id, which is what people compare. */
export const short = (id: string): string => (id.length > 14 ? `${id.slice(0, 6)}…${id.slice(-6)}` : id);

/** The year is told where it is not this one. */
export function moment(ms: number, now = Date.now()): string {
  const [at, here] = [new Date(ms), new Date(now)];
  const year = at.getFullYear() === here.getFullYear() ? {} : ({ year: 'numeric' } as const);
  return at.toLocaleString('en', { month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', hourCycle: 'h23', ...year });
}

/** A sentence of the market's, with its numbers as this page writes them. */
export const said = (text: string): string =>
  text.replace(/(?<![\w.,-])\d{4,}(?= QU\b)/g, (digits) => whole.format(BigInt(digits))).replace(/(\d)%/g, '$1 %');

export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 60) return `${one.format(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
  return `${Math.floor(s / 3600)} h ${Math.round((s % 3600) / 60)} min`;
}

/** A clause of the market's, as it stands alone. Code is left as it is written. */
export const sentence = (text: string): string => (/^[a-z]+\./.test(text) ? text : text.charAt(0).toUpperCase() + text.slice(1));

/** The time of day, to the second. */
export const clock = (ms: number): string => new Date(ms).toLocaleTimeString('en', { hourCycle: 'h23' });

/** From now, in the largest unit that is not 0. */
export function fromNow(ms: number, now = Date.now()): string {
  const left = age(Math.abs(ms - now));
  return ms >= now ? `in ${left}` : `${left} ago`;
}

/** A measurement has its unit (`12.5`, `12 up, 9 down`, `right, in 3.2`); what is said in words (`3 of 5`, `no answer`) needs none: `with_unit` of protocol/selftest.py. */
export function withUnit(text: string, unit: string): string {
  return unit && /^(?!\d+ of \d+$)((?!\d+ of )[+-]?\d[\d.,]*(\s.*)?|.*\s\d[\d.,]*)$/.test(text) ? `${text} ${unit}` : text;
}
