// SPDX-License-Identifier: Apache-2.0
//
// montecarlo_option: for each lane the sum of its paths' discounted payoffs max(start · exp(spread · n) - strike, 0),
// and of their squares, for standard normals n made of Philox4x32-10 words (philox.py, draws.py). For a put, `start`
// and `strike` come negated.
//
// @group(0)
//   0  uniform  Params, 48 bytes:
//        start, spread, strike f32  of model.py's Option, start and strike times its sign
//        first_lane u32             the number of this job's first lane in the whole
//        key_low, key_high u32      seed mod 2³², seed / 2³²
//        paths u32                  of each lane
//        parts u32                  invocations for each lane: ceil(ceil(paths / 4) / 64)
//        batch u32, lanes u32       the first lane of this dispatch among this job's, and how many it takes
//        two unused words
//   1  storage, read_write  sums     array<f32>    a number for each lane of the job: the kernel's outputs
//   2  storage, read_write  squares  array<f32>
//   3  storage, read_write  partial  array<vec2f>  scratch: lanes · parts, a dispatch's own
//
// Entry points, one after the other for each batch of lanes, workgroups of 64:
//   `simulate`: an invocation for each part of a lane; dispatch (ceil(lanes · parts / 64), 1). A part has every
//      parts-th counter of a lane, 64 of them at most, and each counter makes four paths.
//   `gather`: an invocation for each lane; dispatch (ceil(lanes / 64), 1). It adds up the lane's parts.
//
// Sums are taken in eights, of eights, of fours, so that rounding cannot pile up. Logarithm, exponential, cosine and
// sine are polynomials of exactly reduced arguments: WGSL promises too little of its own near 1, and nothing here needs
// an order of operations to be kept.

struct Params {
    start: f32,
    spread: f32,
    strike: f32,
    first_lane: u32,
    key_low: u32,
    key_high: u32,
    paths: u32,
    parts: u32,
    batch: u32,
    lanes: u32,
    unused: vec2u,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
@group(0) @binding(2) var<storage, read_write> squares: array<f32>;
@group(0) @binding(3) var<storage, read_write> partial: array<vec2f>;

const ROUNDS = 10;
const MULTIPLIERS = vec2u(0xD2511F53u, 0xCD9E8D57u);
const KEY_STEPS = vec2u(0x9E3779B9u, 0xBB67AE85u);
const UNIFORM_STEP = 0x1p-23f;
const QUARTER_STEP = 0x1p-21f;

/// The upper word of the product, from 16-bit halves: there is no wider type.
fn high_word(x: u32, multiplier: u32) -> u32 {
    let m1 = multiplier >> 16u;
    let m0 = multiplier & 0xFFFFu;
    let x1 = x >> 16u;
    let x0 = x & 0xFFFFu;
    let middle = x1 * m0 + ((x0 * m0) >> 16u);
    let other = x0 * m1 + (middle & 0xFFFFu);
    return x1 * m1 + (middle >> 16u) + (other >> 16u);
}

/// Philox4x32-10 of the counter (block, lane, 0, 0).
fn words(block: u32, lane: u32) -> vec4u {
    var x = vec4u(block, lane, 0u, 0u);
    var key = vec2u(params.key_low, params.key_high);
    for (var turn = 0; turn < ROUNDS; turn++) {
        let high0 = high_word(x.x, MULTIPLIERS.x);
        let high1 = high_word(x.z, MULTIPLIERS.y);
        x = vec4u(high1 ^ x.y ^ key.x, x.z * MULTIPLIERS.y, high0 ^ x.w ^ key.y, x.x * MULTIPLIERS.x);
        key += KEY_STEPS;
    }
    return x;
}

/// Natural logarithms of numbers from 2^-24 to 1, right relative to their value. With m between √½ and √2 times a power
/// of two, m - 1 is exact.
fn logarithm(x: vec2f) -> vec2f {
    let shifted = bitcast<vec2u>(x) + (0x3F800000u - 0x3F3504F3u);
    let power = vec2f(vec2i(shifted >> vec2u(23u)) - 127);
    let f = bitcast<vec2f>((shifted & vec2u(0x7FFFFFu)) + 0x3F3504F3u) - 1.0;
    let square = f * f;
    var y = f * 7.0376836292e-2 - 1.1514610310e-1;
    y = y * f + 1.1676998740e-1;
    y = y * f - 1.2420140846e-1;
    y = y * f + 1.4249322787e-1;
    y = y * f - 1.6668057665e-1;
    y = y * f + 2.0000714765e-1;
    y = y * f - 2.4999993993e-1;
    y = y * f + 3.3333331174e-1;
    y = y * f * square - 2.12194440e-4 * power - 0.5 * square;
    return (f + y) + 0.693359375 * power;
}

/// Of numbers between -60 and 60: 2^power times a polynomial of what is left, at most ln(2) / 2.
fn exponential(x: vec4f) -> vec4f {
    let power = floor(x * 1.44269504 + 0.5);
    let f = (x - power * 0.693359375) + power * 2.12194440e-4;
    var y = f * 1.9875691500e-4 + 1.3981999507e-3;
    y = y * f + 8.3334519073e-3;
    y = y * f + 4.1665795894e-2;
    y = y * f + 1.6666665459e-1;
    y = y * f + 5.0000001201e-1;
    y = y * f * f + f + 1.0;
    return y * bitcast<vec4f>(vec4u(vec4i(power) + 127) << vec4u(23u));
}

/// Square roots of numbers over zero; a step of Newton's makes up for what an approximate inverse root is off by.
fn root(x: vec2f) -> vec2f {
    let inverse = inverseSqrt(x);
    let y = x * inverse;
    return y + 0.5 * inverse * (x - y * y);
}

/// Four standard normals of four words (Box and Muller): in each pair the first word is the radius, the other the angle.
fn normals(word: vec4u) -> vec4f {
    let uniform_number = (vec2f(word.xz >> vec2u(9u)) + 0.5) * UNIFORM_STEP;
    let radius = root(-2.0 * logarithm(uniform_number));
    let kept = word.yw >> vec2u(9u);
    let quarter = kept >> vec2u(21u);
    let rest = (vec2f(kept & vec2u(0x1FFFFFu)) + 0.5) * QUARTER_STEP - 0.5;
    let s = rest * rest;
    var cosine = s * -2.5202042e-5 + 9.1926026e-4;
    cosine = cosine * s - 2.0863481e-2;
    cosine = cosine * s + 2.5366950e-1;
    cosine = cosine * s - 1.2337005;
    cosine = cosine * s + 1.0;
    var sine = s * 1.6044118e-4 - 4.6817541e-3;
    sine = sine * s + 7.9692626e-2;
    sine = sine * s - 6.4596410e-1;
    sine = sine * s + 1.5707964;
    cosine = cosine * radius;
    sine = sine * rest * radius;
    let odd = (quarter & vec2u(1u)) != vec2u(0u);
    let across = select(cosine, -sine, odd);
    let up = select(sine, cosine, odd);
    let negative = (quarter & vec2u(2u)) != vec2u(0u);
    let x = select(across, -across, negative);
    let y = select(up, -up, negative);
    return vec4f(x.x, y.x, x.y, y.y);
}

/// Sum of the payoffs of a counter's paths, and of their squares.
fn payoffs(block: u32, lane: u32) -> vec2f {
    let price = params.start * exponential(params.spread * normals(words(block, lane)));
    let path = vec4u(4u * block) + vec4u(0u, 1u, 2u, 3u);
    let gain = select(vec4f(0.0), max(price - params.strike, vec4f(0.0)), path < vec4u(params.paths));
    let square = gain * gain;
    return vec2f((gain.x + gain.y) + (gain.z + gain.w), (square.x + square.y) + (square.z + square.w));
}

@compute @workgroup_size(64)
fn simulate(@builtin(global_invocation_id) place: vec3u) {
    let index = place.x;
    if (index >= params.lanes * params.parts) {
        return;
    }
    let lane = params.first_lane + params.batch + index / params.parts;
    let counters = (params.paths + 3u) / 4u;
    let eighth = 8u * params.parts;
    var total = vec2f(0.0);
    for (var block = index % params.parts; block < counters; block += eighth) {
        var few = vec2f(0.0);
        let stop = min(counters, block + eighth);
        for (var counter = block; counter < stop; counter += params.parts) {
            few += payoffs(counter, lane);
        }
        total += few;
    }
    partial[index] = total;
}

@compute @workgroup_size(64)
fn gather(@builtin(global_invocation_id) place: vec3u) {
    let lane = place.x;
    if (lane >= params.lanes) {
        return;
    }
    let stop = (lane + 1u) * params.parts;
    var total = vec2f(0.0);
    for (var part = lane * params.parts; part < stop; part += 8u) {
        var few = vec2f(0.0);
        for (var one = part; one < min(stop, part + 8u); one++) {
            few += partial[one];
        }
        total += few;
    }
    sums[params.batch + lane] = total.x;
    squares[params.batch + lane] = total.y;
}
