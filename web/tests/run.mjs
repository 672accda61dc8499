// SPDX-License-Identifier: Apache-2.0
/** `npm run test`: the tests beside this file, built by Vite like the pages and run by Node's own test runner. */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'vite';

const here = fileURLToPath(new URL('.', import.meta.url));
const sources = readdirSync(here, { recursive: true }).filter((name) => String(name).endsWith('.test.ts'));
const out = mkdtempSync(join(tmpdir(), 'qubix-web-tests-'));
try {
  await build({
    configFile: false,
    logLevel: 'warn',
    root: here,
    // What the pages are made with is built in, too: the folder that the tests run in has no packages.
    ssr: { noExternal: true },
    build: {
      ssr: true,
      outDir: out,
      emptyOutDir: true,
      target: 'es2022',
      rollupOptions: { input: Object.fromEntries(sources.map((name) => [basename(String(name), '.ts'), join(here, String(name))])) },
    },
  });
  const built = readdirSync(out).filter((name) => name.endsWith('.test.js')).map((name) => join(out, name));
  const ran = spawnSync(process.execPath, ['--test', '--test-reporter=spec', '--test-timeout=60000', ...built], { stdio: 'inherit' });
  process.exitCode = ran.status ?? 1;
} finally {
  rmSync(out, { recursive: true, force: true });
}
