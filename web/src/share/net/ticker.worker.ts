// SPDX-License-Identifier: Apache-2.0
/** Says each id back after its time. */

onmessage = (event: MessageEvent<{ id: number; ms: number }>) => {
  const { id, ms } = event.data;
  setTimeout(() => postMessage(id), ms);
};
