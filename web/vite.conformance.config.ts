import { defineConfig } from 'vite';

import { made } from './vite.config';

// Builds the worker, and a provider, each beside a page that the tests speak to it through: `vite build -c vite.conformance.config.ts --outDir FOLDER`.
export default defineConfig({ root: 'conformance', publicDir: '../public', base: './', build: { ...made, emptyOutDir: true, rollupOptions: { input: ['conformance/index.html', 'conformance/provider.html'] } }, worker: { format: 'es' } });
