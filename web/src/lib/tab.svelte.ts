// SPDX-License-Identifier: Apache-2.0
/**
 * Whether this tab shares its graphics card: what the frame shows on every page, and what survives a reload. The sharing
 * itself is loaded when it is needed.
 */

const ON = 'qubix.share.on';

class Tab {
  /** What the header says; "" while nothing is shared. */
  phase = $state<'' | 'connecting' | 'listed' | 'running' | 'paused' | 'lost'>('');

  /** Kept by this tab alone, over reloads; another tab of the browser does not begin by itself. */
  get wanted(): boolean {
    return storage()?.getItem(ON) === '1';
  }
  set wanted(on: boolean) {
    if (on) storage()?.setItem(ON, '1');
    else storage()?.removeItem(ON);
  }

  /** Goes on where a reload interrupted it. */
  async goOn(): Promise<void> {
    if (!this.wanted) return;
    const { sharing } = await import('../share/sharing.svelte');
    await sharing.go();
  }
}

/** null where the browser keeps nothing for a page. */
function storage(): Storage | null {
  try {
    return sessionStorage;
  } catch {
    return null;
  }
}

export const tab = new Tab();
