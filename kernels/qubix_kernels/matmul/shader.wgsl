// SPDX-License-Identifier: Apache-2.0
//
// matmul: c = a @ b in float32, each invocation 8 rows × 8 columns of c in registers, without barriers.
//
// @group(0)
//   0  uniform  Params, 32 bytes, all u32:
//        rows     of a and c that this dispatch computes
//        columns  of b and c, in fours (ceil(n / 4))
//        depth    columns of a, in fours (ceil(k / 4)): the distance of a's rows
//        first, stop   which of these fours of k to add up: at most 16,384 of them, so that no invocation loops longer
//        first_row     of this dispatch
//        add      1 adds to what c holds, 0 begins anew
//        one unused word
//   1  storage, read        a  array<vec4f>  rows · depth: rows filled up with zeros to whole fours
//   2  storage, read        b  array<vec4f>  4 depth · columns: filled up with zeros in both directions
//   3  storage, read_write  c  array<vec4f>  rows · columns: the output, with up to three columns too many
//
// Entry point `product`, workgroups of 8 × 4 = 64 columns × 32 rows of numbers:
// dispatch (ceil(columns / 16), ceil(rows / 32)). float16 is widened by the host, which is exact; there is no float64.
// The host has refused NaN, infinity and what could overflow (qubix_kernels/matmul/norms.py). A job may be divided by
// rows, by columns and, with `add`, by k. Sums may be fused or taken in any order.

struct Params {
    rows: u32,
    columns: u32,
    depth: u32,
    first: u32,
    stop: u32,
    first_row: u32,
    add: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> c: array<vec4f>;

const EACH = 8u;
const APART = 8u;

@compute @workgroup_size(8, 4)
fn product(@builtin(workgroup_id) block: vec3u, @builtin(local_invocation_id) place: vec3u) {
    let row = (block.y * 4u + place.y) * EACH;
    let left = block.x * 2u * APART + place.x;
    if (row >= params.rows || left >= params.columns) {
        return;
    }
    // What lies outside is read at the edge, and its sums are dropped. Written out: no compiler may keep sums in memory.
    let right = min(left + APART, params.columns - 1u);
    let last = params.rows - 1u;
    let upper = (min(vec4u(0u, 1u, 2u, 3u) + row, vec4u(last)) + params.first_row) * params.depth;
    let lower = (min(vec4u(4u, 5u, 6u, 7u) + row, vec4u(last)) + params.first_row) * params.depth;
    var l0 = vec4f(0.0);
    var l1 = vec4f(0.0);
    var l2 = vec4f(0.0);
    var l3 = vec4f(0.0);
    var l4 = vec4f(0.0);
    var l5 = vec4f(0.0);
    var l6 = vec4f(0.0);
    var l7 = vec4f(0.0);
    var r0 = vec4f(0.0);
    var r1 = vec4f(0.0);
    var r2 = vec4f(0.0);
    var r3 = vec4f(0.0);
    var r4 = vec4f(0.0);
    var r5 = vec4f(0.0);
    var r6 = vec4f(0.0);
    var r7 = vec4f(0.0);
    for (var four = params.first; four < params.stop; four++) {
        let a0 = a[upper.x + four];
        let a1 = a[upper.y + four];
        let a2 = a[upper.z + four];
        let a3 = a[upper.w + four];
        let a4 = a[lower.x + four];
        let a5 = a[lower.y + four];
        let a6 = a[lower.z + four];
        let a7 = a[lower.w + four];
        var line = four * 4u * params.columns;
        var bl = b[line + left];
        var br = b[line + right];
        l0 += a0.x * bl;
        r0 += a0.x * br;
        l1 += a1.x * bl;
        r1 += a1.x * br;
        l2 += a2.x * bl;
        r2 += a2.x * br;
        l3 += a3.x * bl;
        r3 += a3.x * br;
        l4 += a4.x * bl;
        r4 += a4.x * br;
        l5 += a5.x * bl;
        r5 += a5.x * br;
        l6 += a6.x * bl;
        r6 += a6.x * br;
        l7 += a7.x * bl;
        r7 += a7.x * br;
        line += params.columns;
        bl = b[line + left];
        br = b[line + right];
        l0 += a0.y * bl;
        r0 += a0.y * br;
        l1 += a1.y * bl;
        r1 += a1.y * br;
        l2 += a2.y * bl;
        r2 += a2.y * br;
        l3 += a3.y * bl;
        r3 += a3.y * br;
        l4 += a4.y * bl;
        r4 += a4.y * br;
        l5 += a5.y * bl;
        r5 += a5.y * br;
        l6 += a6.y * bl;
        r6 += a6.y * br;
        l7 += a7.y * bl;
        r7 += a7.y * br;
        line += params.columns;
        bl = b[line + left];
        br = b[line + right];
        l0 += a0.z * bl;
        r0 += a0.z * br;
        l1 += a1.z * bl;
        r1 += a1.z * br;
        l2 += a2.z * bl;
        r2 += a2.z * br;
        l3 += a3.z * bl;
        r3 += a3.z * br;
        l4 += a4.z * bl;
        r4 += a4.z * br;
        l5 += a5.z * bl;
        r5 += a5.z * br;
        l6 += a6.z * bl;
        r6 += a6.z * br;
        l7 += a7.z * bl;
        r7 += a7.z * br;
        line += params.columns;
        bl = b[line + left];
        br = b[line + right];
        l0 += a0.w * bl;
        r0 += a0.w * br;
        l1 += a1.w * bl;
        r1 += a1.w * br;
        l2 += a2.w * bl;
        r2 += a2.w * br;
        l3 += a3.w * bl;
        r3 += a3.w * br;
        l4 += a4.w * bl;
        r4 += a4.w * br;
        l5 += a5.w * bl;
        r5 += a5.w * br;
        l6 += a6.w * bl;
        r6 += a6.w * br;
        l7 += a7.w * bl;
        r7 += a7.w * br;
    }

    keep(row + 0u, left, l0, r0);
    keep(row + 1u, left, l1, r1);
    keep(row + 2u, left, l2, r2);
    keep(row + 3u, left, l3, r3);
    keep(row + 4u, left, l4, r4);
    keep(row + 5u, left, l5, r5);
    keep(row + 6u, left, l6, r6);
    keep(row + 7u, left, l7, r7);
}

/// One row of an invocation's sums, as far as it lies inside.
fn keep(row: u32, left: u32, l: vec4f, r: vec4f) {
    if (row < params.rows) {
        let line = (params.first_row + row) * params.columns;
        store(line + left, l);
        if (left + APART < params.columns) {
            store(line + left + APART, r);
        }
    }
}

fn store(index: u32, sum: vec4f) {
    var before = vec4f(0.0);
    if (params.add == 1u) {
        before = c[index];
    }
    c[index] = before + sum;
}
