// SPDX-License-Identifier: Apache-2.0
//
// matmul: c = a @ b in float32, each invocation 4 rows × 8 columns of c in registers, without barriers.
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
// Entry point `product`, workgroups of 8 × 8 = 64 columns × 32 rows of numbers:
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

const EACH = 4u;
const APART = 8u;

@compute @workgroup_size(8, 8)
fn product(@builtin(workgroup_id) block: vec3u, @builtin(local_invocation_id) place: vec3u) {
    let row = (block.y * 8u + place.y) * EACH;
    let left = block.x * 2u * APART + place.x;
    let right = left + APART;
    if (row >= params.rows || left >= params.columns) {
        return;
    }
    let last = params.rows - 1u;
    let at = vec4u(row, min(row + 1u, last), min(row + 2u, last), min(row + 3u, last)) + params.first_row;
    let line = at * params.depth;
    let right_read = min(right, params.columns - 1u);

    var l0 = vec4f(0.0);
    var l1 = vec4f(0.0);
    var l2 = vec4f(0.0);
    var l3 = vec4f(0.0);
    var r0 = vec4f(0.0);
    var r1 = vec4f(0.0);
    var r2 = vec4f(0.0);
    var r3 = vec4f(0.0);
    for (var four = params.first; four < params.stop; four++) {
        let a0 = a[line.x + four];
        let a1 = a[line.y + four];
        let a2 = a[line.z + four];
        let a3 = a[line.w + four];
        var from_b = four * 4u * params.columns;
        var bl = b[from_b + left];
        var br = b[from_b + right_read];
        l0 += a0.x * bl;
        r0 += a0.x * br;
        l1 += a1.x * bl;
        r1 += a1.x * br;
        l2 += a2.x * bl;
        r2 += a2.x * br;
        l3 += a3.x * bl;
        r3 += a3.x * br;
        from_b += params.columns;
        bl = b[from_b + left];
        br = b[from_b + right_read];
        l0 += a0.y * bl;
        r0 += a0.y * br;
        l1 += a1.y * bl;
        r1 += a1.y * br;
        l2 += a2.y * bl;
        r2 += a2.y * br;
        l3 += a3.y * bl;
        r3 += a3.y * br;
        from_b += params.columns;
        bl = b[from_b + left];
        br = b[from_b + right_read];
        l0 += a0.z * bl;
        r0 += a0.z * br;
        l1 += a1.z * bl;
        r1 += a1.z * br;
        l2 += a2.z * bl;
        r2 += a2.z * br;
        l3 += a3.z * bl;
        r3 += a3.z * br;
        from_b += params.columns;
        bl = b[from_b + left];
        br = b[from_b + right_read];
        l0 += a0.w * bl;
        r0 += a0.w * br;
        l1 += a1.w * bl;
        r1 += a1.w * br;
        l2 += a2.w * bl;
        r2 += a2.w * br;
        l3 += a3.w * bl;
        r3 += a3.w * br;
    }

    keep(at.x, left, l0);
    keep(at.x, right, r0);
    if (row + 1u < params.rows) {
        keep(at.y, left, l1);
        keep(at.y, right, r1);
    }
    if (row + 2u < params.rows) {
        keep(at.z, left, l2);
        keep(at.z, right, r2);
    }
    if (row + 3u < params.rows) {
        keep(at.w, left, l3);
        keep(at.w, right, r3);
    }
}

fn keep(row: u32, column: u32, sum: vec4f) {
    if (column < params.columns) {
        let index = row * params.columns + column;
        var before = vec4f(0.0);
        if (params.add == 1u) {
            before = c[index];
        }
        c[index] = before + sum;
    }
}
