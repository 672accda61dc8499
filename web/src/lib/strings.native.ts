// SPDX-License-Identifier: Apache-2.0
/** What the native worker's file does on each system, before it is started. */

export const native = {
  does: 'What the file does',
  points: {
    linux: [
      'Needs Python 3.11, 3.12 or 3.13 with venv. No root, no password.',
      'Installs packages, each checked by its hash, into ~/.local/share/qubix-worker.',
      'Starts at login by systemd’s user session, and waits until it is listed.',
      'Takes itself away again: sh qubix-worker.sh --uninstall',
    ],
    macos: [
      'Needs Python 3.11, 3.12 or 3.13 and, for one package, a compiler with GMP. No administrator.',
      'Installs packages, each checked by its hash, into ~/.local/share/qubix-worker.',
      'Starts at login by launchd, and waits until it is listed.',
      'Takes itself away again: sh qubix-worker.command --uninstall',
    ],
    windows: [
      'Needs WSL 2 with a Linux distribution: the worker runs in it, and uses an NVIDIA card by Windows’ own driver.',
      'Installs packages, each checked by its hash, into your home folder there.',
      'Starts when you log on by Task Scheduler, and waits until it is listed.',
      'Takes itself away again: qubix-worker.cmd uninstall',
    ],
  },
  untried: 'This file has not been run on its system yet: tell us what you find.',
  selftest: { pass: 'self-test passed', fail: 'self-test failed' } as Record<string, string>,
} as const;
