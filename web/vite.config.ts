import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// `npm run dev` talks to a market that `qubix up` started; QUBIX_URL names another.
const market = process.env['QUBIX_URL'] ?? 'http://127.0.0.1:8600';

export default defineConfig({
  plugins: [svelte()],
  // No data: addresses and no inline polyfill: the served policy allows neither.
  build: { target: 'es2022', assetsInlineLimit: 0, modulePreload: { polyfill: false }, sourcemap: false },
  server: { host: '127.0.0.1', proxy: { '/api': market, '/live': { target: market.replace('http', 'ws'), ws: true } } },
});
