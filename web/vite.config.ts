import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// `npm run dev` talks to a market that `qubix up` started; QUBIX_URL names another.
const market = process.env['QUBIX_URL'] ?? 'http://127.0.0.1:8600';

// No data: addresses and no inline polyfill: the served policy allows neither.
export const made = { target: 'es2022', assetsInlineLimit: 0, modulePreload: { polyfill: false }, sourcemap: false };

export default defineConfig({
  plugins: [svelte()],
  build: made,
  worker: { format: 'es' },
  server: {
    host: '127.0.0.1',
    // The shaders stand beside the kernels' other back ends.
    fs: { allow: ['.', '../kernels/qubix_kernels'] },
    proxy: { '/api': market, '/live': { target: market.replace('http', 'ws'), ws: true } },
  },
});
