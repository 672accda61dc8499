// SPDX-License-Identifier: Apache-2.0
/** How much memory of a card can be had at once; all of it is given back. */

import type { Card } from './card';

const BLOCK_BYTES = 128 * 1024 * 1024;
/** More is not tried: a tab is not the card's only user. */
const BYTES_MAX = 4 * 1024 ** 3;
/** A processor that poses as a card has no memory of its own to offer. */
const FALLBACK_BYTES_MAX = 512 * 1024 ** 2;

/** `written`: to each block, since promised memory is not there before. */
export async function room(card: Card, written: boolean): Promise<number> {
  const most = card.info.fallback ? FALLBACK_BYTES_MAX : BYTES_MAX;
  const blocks: GPUBuffer[] = [];
  try {
    while (blocks.length * BLOCK_BYTES < most) {
      const block = await taken(card);
      if (!block) break;
      blocks.push(block);
      if (written) await cleared(card, block);
    }
    return blocks.length * BLOCK_BYTES;
  } finally {
    for (const block of blocks) block.destroy();
  }
}

/** null: there is no room for it. */
async function taken(card: Card): Promise<GPUBuffer | null> {
  card.device.pushErrorScope('out-of-memory');
  const block = card.buffer(BLOCK_BYTES);
  if ((await card.orGone(card.device.popErrorScope())) === null) return block;
  block.destroy();
  return null;
}

function cleared(card: Card, block: GPUBuffer): Promise<void> {
  const encoder = card.device.createCommandEncoder();
  encoder.clearBuffer(block);
  card.device.queue.submit([encoder.finish()]);
  return card.done();
}
