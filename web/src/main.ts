// SPDX-License-Identifier: Apache-2.0
import '@fontsource-variable/inter/index.css';
import './design/tokens.css';
import './design/base.css';
import './design/page.css';

import { mount } from 'svelte';

import App from './App.svelte';
import { applyTheme } from './lib/theme.svelte';

applyTheme();
const target = document.getElementById('app');
if (target) mount(App, { target });
