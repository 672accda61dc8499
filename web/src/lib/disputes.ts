// SPDX-License-Identifier: Apache-2.0
import type { Schemas } from './api/client';
import { session } from './session.svelte';

export type Dispute = Schemas['DisputeView'];
export type DisputeState = Dispute['state'];

const TONES: Record<DisputeState, string> = { opened: 'warn', rerunning: 'info', judging: 'warn', resolved: 'good' };
export const disputeTone = (state: DisputeState): string => TONES[state];
export const arbiter = (): boolean => session.account?.scopes.includes('arbiter') ?? false;
/** Where this account reads disputes: an arbiter reads all of them. */
export const source = (): string => (arbiter() ? '/arbiter/disputes' : '/disputes');
