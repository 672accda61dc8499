// SPDX-License-Identifier: Apache-2.0
/** What this browser is called in the list of sessions: its maker's name and the system's, nothing finer. */

const BROWSERS: [RegExp, string][] = [
  [/Edg\//, 'Edge'],
  [/OPR\//, 'Opera'],
  [/Firefox\//, 'Firefox'],
  [/Chrom(e|ium)\//, 'Chrome'],
  [/Safari\//, 'Safari'],
];
const SYSTEMS: [RegExp, string][] = [
  [/Android/, 'Android'],
  [/iPhone|iPad/, 'iOS'],
  [/Windows/, 'Windows'],
  [/Mac OS X/, 'macOS'],
  [/Linux/, 'Linux'],
];

export function deviceName(agent = navigator.userAgent): string {
  const of = (list: [RegExp, string][], other: string): string => list.find(([pattern]) => pattern.test(agent))?.[1] ?? other;
  return `${of(BROWSERS, 'Browser')} on ${of(SYSTEMS, 'another system')}`;
}
