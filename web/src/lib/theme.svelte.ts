// SPDX-License-Identifier: Apache-2.0
/** Light, dark, or as the system says. */

import { MediaQuery } from 'svelte/reactivity';

export type Theme = 'system' | 'light' | 'dark';
const KEY = 'qubix.theme';

function read(): Theme {
  const kept = localStorage.getItem(KEY);
  return kept === 'light' || kept === 'dark' ? kept : 'system';
}

export const theme = $state({ now: read() });
export const systemDark = new MediaQuery('prefers-color-scheme: dark');

export function applyTheme(): void {
  if (theme.now === 'system') delete document.documentElement.dataset['theme'];
  else document.documentElement.dataset['theme'] = theme.now;
}

export function setTheme(next: Theme): void {
  theme.now = next;
  if (next === 'system') localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, next);
  applyTheme();
}
