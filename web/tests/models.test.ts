// SPDX-License-Identifier: Apache-2.0
/** Arrays that are made here are what was written, in the file's form; and what does not fit an input is said. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generated, misfit, pasted, shapeOf, startShape, wrapped, type Port } from '../src/lib/models';
import { metaOf, npyOf } from '../src/lib/npy';
import { readNpy } from '../src/share/net/arrays';

const port = (dims: (number | string)[] | null, dtype = 'float32'): Port => ({ name: 'x', wire: 'x', dtype, dims });

const KINDS: [string, number[], string][] = [
  ['float32', [0.5, -2], '0000003f000000c0'],
  ['float64', [1], '000000000000f03f'],
  ['int64', [-1, 2], 'ffffffffffffffff0200000000000000'],
  ['uint64', [2], '0200000000000000'],
  ['int16', [-2], 'feff'],
  ['uint8', [255, 0], 'ff00'],
  ['bool', [1, 0], '0100'],
];

for (const [dtype, numbers, hex] of KINDS) {
  test(`${dtype} as it was written`, async () => {
    const made = pasted(dtype, JSON.stringify(numbers));
    assert.ok(made);
    assert.deepEqual(made.meta, { dtype, shape: [numbers.length] });
    assert.deepEqual(await metaOf(made.file), made.meta);
    const bytes = new Uint8Array(await made.file.arrayBuffer());
    assert.equal((bytes.length - hex.length / 2) % 64, 0, 'the data begin at a multiple of 64');
    const read = await readNpy(bytes);
    assert.equal(Buffer.from(read?.data ?? new ArrayBuffer(0)).toString('hex'), hex);
  });
}

test('lists in lists are rows, and a number alone has no axis', () => {
  assert.deepEqual(pasted('float32', '[[1, 2, 3], [4, 5, 6]]')?.meta.shape, [2, 3]);
  assert.deepEqual(pasted('float32', '[[[1]], [[2]]]')?.meta.shape, [2, 1, 1]);
  assert.deepEqual(pasted('int64', '16000')?.meta.shape, []);
});

const WRONG: [string, string][] = [
  ['float32', ''],
  ['float32', '[1, 2'],
  ['float32', '[[1, 2], [3]]'],
  ['float32', '[[1], 2]'],
  ['float32', '[]'],
  ['float32', '["1"]'],
  ['float32', '[null]'],
  ['float32', '{"a": 1}'],
  ['int32', '[1.5]'],
  ['uint8', '[256]'],
  ['uint64', '[-1]'],
  ['int64', '[9007199254740993]'],
  ['bool', '[2]'],
  ['float16', '[1]'],
];
for (const [dtype, text] of WRONG) test(`no ${dtype}: ${text}`, () => assert.equal(pasted(dtype, text), null));

test('made-up arrays have the shape that was asked for', async () => {
  const zeros = generated('float32', [2, 3], 'zeros');
  assert.ok(zeros);
  const read = await readNpy(new Uint8Array(await zeros.file.arrayBuffer()));
  assert.deepEqual([...new Float32Array(read?.data ?? new ArrayBuffer(0))], [0, 0, 0, 0, 0, 0]);
  let turn = 0;
  const noise = generated('float32', [1000], 'noise', () => (turn = (turn * 16807 + 11) % 2147483647) / 2147483647);
  const values = new Float32Array((await readNpy(new Uint8Array(await noise!.file.arrayBuffer())))!.data);
  assert.ok(values.every(Number.isFinite));
  assert.ok(new Set(values).size > 900);
  const tokens = new BigInt64Array((await readNpy(new Uint8Array(await generated('int64', [64], 'noise')!.file.arrayBuffer())))!.data);
  assert.ok(tokens.every((one) => one === 0n || one === 1n), 'indices that any table has');
});

test('a file of a model is its bytes as an array', async () => {
  const made = wrapped(new Blob([Uint8Array.of(8, 8, 58)]));
  assert.deepEqual(await metaOf(made.file), { dtype: 'uint8', shape: [3] });
  assert.deepEqual([...new Uint8Array(await made.file.slice(-3).arrayBuffer())], [8, 8, 58]);
  assert.deepEqual(await metaOf(npyOf({ dtype: 'float16', shape: [] }, new ArrayBuffer(2))), { dtype: 'float16', shape: [] });
});

const FITS: [Port, number[], 'shape' | null][] = [
  [port(['n', 3]), [8, 3], null],
  [port(['n', 3]), [8, 4], 'shape'],
  [port(['n', 3]), [8], 'shape'],
  [port([1, 3]), [8, 3], null],
  [port([4, 3]), [8, 4, 3], null],
  [port([4, 3]), [4, 3], null],
  [port([4, 3]), [5, 3], 'shape'],
  [port(['n', 'length']), [8, 77], null],
  [port([]), [8], null],
  [port(null), [1, 2, 3], null],
];
for (const [one, shape, off] of FITS) {
  test(`[${shape}] for [${one.dims}]: ${off ?? 'fits'}`, () => assert.equal(misfit(one, { dtype: 'float32', shape }), off));
}
test('another dtype is told first', () => assert.equal(misfit(port(['n', 3]), { dtype: 'float64', shape: [1] }), 'dtype'));

test('shapes', () => {
  assert.deepEqual(shapeOf('8, 3'), [8, 3]);
  assert.deepEqual(shapeOf('(8,)'), [8]);
  assert.deepEqual(shapeOf(''), []);
  for (const text of ['0', '-1', '1.5', 'n, 3', '100000, 100000', '1,1,1,1,1,1,1,1,1']) assert.equal(shapeOf(text), null, text);
  assert.equal(startShape(port(['n', 3, 'length'])), '8, 3, 1');
});
