// SPDX-License-Identifier: Apache-2.0
/** WalletConnect of this page, made when it is first wanted. */

import { Client } from './client';
import * as kept from './kept';
import { Relay, type LineState } from './relay';
import type { Session } from './rules';

export interface Started {
  readonly client: Client;
  readonly relay: Relay;
}

export function start(
  url: string,
  projectId: string,
  name: string,
  changed: { line: (state: LineState) => void; session: (session: Session | null) => void },
): Started {
  let client: Client | null = null;
  const relay = new Relay({
    ...{ url, projectId, key: kept.key, changed: changed.line },
    received: async (topic, message) => client?.received(topic, message),
  });
  const metadata = { name, description: 'A market for GPUs, settled in QU', url: location.origin, icons: [`${location.origin}/favicon.svg`] };
  const session = kept.session();
  client = new Client({
    ...{ relay, metadata, kept: session },
    changed: (next) => {
      kept.keep(next);
      changed.session(next);
    },
  });
  changed.session(session);
  const found = client;
  addEventListener('storage', (event) => {
    if (event.key !== kept.NAME) return;
    found.adopt(kept.session());
    changed.session(found.session);
  });
  addEventListener('online', () => relay.wake());
  document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && relay.wake());
  return { client: found, relay };
}
