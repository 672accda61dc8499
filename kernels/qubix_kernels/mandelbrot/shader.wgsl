// SPDX-License-Identifier: Apache-2.0
//
// mandelbrot: how many of the first `most` values of z -> z² + c from z = c come before the first with |z|² > 4.
//
// @group(0)
//   0  uniform  Params, 32 bytes, all u32: the image's width and height, most (max_iterations), and the block of pixels
//      that this dispatch computes: its first column and row, its columns and rows
//   1  storage, read        real       array<f32>  of each column; computed in float64 by the host and rounded once
//   2  storage, read        imaginary  array<f32>  of each row, likewise (qubix_kernels/mandelbrot/window.py)
//   3  storage, read_write  iterations array<i32>  height · width, in C order: the kernel's output
//
// Entry point `escape`: one invocation a pixel, workgroups of 8 × 8; dispatch (ceil(columns / 8), ceil(rows / 8)). An
// image may be computed in any blocks. `most` is at most 65,535, and so is what an invocation loops.
// Products and sums may be fused or reassociated: the check encloses every float32 orbit.

struct Params {
    width: u32,
    height: u32,
    most: u32,
    first_column: u32,
    first_row: u32,
    columns: u32,
    rows: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> real: array<f32>;
@group(0) @binding(2) var<storage, read> imaginary: array<f32>;
@group(0) @binding(3) var<storage, read_write> iterations: array<i32>;

@compute @workgroup_size(8, 8)
fn escape(@builtin(global_invocation_id) place: vec3u) {
    if (place.x >= params.columns || place.y >= params.rows) {
        return;
    }
    let column = params.first_column + place.x;
    let row = params.first_row + place.y;
    let cr = real[column];
    let ci = imaginary[row];
    let most = params.most;
    var zr = cr;
    var zi = ci;
    var found = most;
    for (var step = 0u; step < most; step++) {
        let squares_r = zr * zr;
        let squares_i = zi * zi;
        if (squares_r + squares_i > 4.0) {
            found = step;
            break;
        }
        zi = (zr + zr) * zi + ci;
        zr = squares_r - squares_i + cr;
    }
    iterations[row * params.width + column] = i32(found);
}
