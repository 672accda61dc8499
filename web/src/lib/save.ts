// SPDX-License-Identifier: Apache-2.0
/** Hands the person a file. */

const KEPT_MS = 60_000;

export function save(content: BlobPart, name: string, kind = 'application/octet-stream'): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([content], { type: kind }));
  link.download = name;
  link.click();
  // The browser reads it after the click: it must still be there.
  setTimeout(() => URL.revokeObjectURL(link.href), KEPT_MS);
}
