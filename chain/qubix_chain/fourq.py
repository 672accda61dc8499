# SPDX-License-Identifier: Apache-2.0
"""FourQ, the curve of Qubic's keys: -x² + y² = 1 + d·x²·y² over GF(p²), p = 2^127 - 1, i² = -1.

(Costello and Longa, 2015.) An element of the field is a pair (a, b) = a + b·i; a point is (X, Y, Z, T) in extended
coordinates with x = X/Z, y = Y/Z, T = XY/Z. Here -1 is a square and d is not, so the addition law is complete: it has
no exceptions, not even for points of small order (Hisil, Wong, Carter and Dawson, 2008). The curve's endomorphisms are
not used: plain multiplication agrees with them on every point of the prime-order subgroup, and nothing rests on others.

Not constant-time: how long a multiplication takes tells something about its scalar. What signs for other people
therefore runs in a process of its own.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

Element: TypeAlias = tuple[int, int]
Point: TypeAlias = tuple[Element, Element, Element, Element]
# A summand made ready: (y + x, y - x, 2z, 2dt), and with z = 1 (y + x, y - x, 2dt).
Ready: TypeAlias = tuple[Element, Element, Element, Element]
AffineReady: TypeAlias = tuple[Element, Element, Element]

P: Final = 2**127 - 1
N: Final = 0x29CBC14E5E0A72F05397829CBC14E5DFBD004DFE0F79992FB2540EC7768CE7
D: Final = (0xE40000000000000142, 0x5E472F846657E0FCB3821488F1FC0C8D)
GENERATOR_X: Final = (0x1A3472237C2FB305286592AD7B3833AA, 0x1E1F553F2878AA9C96869FB360AC77F6)
GENERATOR_Y: Final = (0x0E3FEE9BA120785AB924A2462BCBB287, 0x6E1C4AF8630E024249A7C344844C8B5C)

ENCODED_SIZE: Final = 32
_TOP_BIT: Final = 1 << 127
_WINDOW: Final = 8  # bits of a digit of the fixed base: 31 windows of 128 multiples, built in about 40 ms
_WNAF: Final = 5


class Curve:
    """Arithmetic on the curve. `number` makes the integers that it computes with: `int`, or `gmpy2.mpz`."""

    def __init__(self, number: Callable[[int], int] = int) -> None:
        self._number = number
        self._p = number(P)
        self._d = self._element(D)
        self._2d = _plus(self._d, self._d, self._p)
        self._zero, self._one = self._element((0, 0)), self._element((1, 0))
        self.neutral: Final[Point] = (self._zero, self._one, self._one, self._zero)
        self.generator: Final[Point] = self._affine_point(self._element(GENERATOR_X), self._element(GENERATOR_Y))

    def add(self, a: Point, b: Point) -> Point:
        return _add(a, self._ready(b), self._p)

    def negative(self, a: Point) -> Point:
        x, y, z, t = a
        return _minus(self._zero, x, self._p), y, z, _minus(self._zero, t, self._p)

    def is_neutral(self, a: Point) -> bool:
        x, y, z, _ = a
        return x == (0, 0) and y == z

    def times_generator(self, scalar: int) -> Point:
        """scalar · G for 0 <= scalar < N."""
        p, result = self._p, self.neutral
        for digit, multiples in zip(_signed_digits(scalar), self._generator_multiples, strict=True):
            if digit > 0:
                result = _add_affine(result, multiples[digit - 1], p)
            elif digit < 0:
                result = _add_affine(result, _negative_affine(multiples[-digit - 1], p), p)
        return result

    def times(self, scalar: int, a: Point) -> Point:
        """scalar · a for any point of the curve and any scalar >= 0."""
        p, result = self._p, self.neutral
        odd = self._odd_multiples(a)
        for digit in _wnaf(scalar):
            result = _double(result, p)
            if digit > 0:
                result = _add(result, odd[digit // 2], p)
            elif digit < 0:
                result = _add(result, _negative(odd[-digit // 2], p), p)
        return result

    def in_prime_subgroup(self, a: Point) -> bool:
        """Whether the point has the prime order N. That refuses the neutral point, those of low order (which 392 brings
        to it; 392 and N have no common factor) and those with a part of low order."""
        return not self.is_neutral(a) and self.is_neutral(self.times(N, a))

    def encode(self, a: Point) -> bytes:
        """y as two little-endian words of 16 bytes; the top bit of the second is the sign of x."""
        x, y, z, _ = a
        inverse = self._inverse(z)
        x, y = _times(x, inverse, self._p), _times(y, inverse, self._p)
        word = int(y[1]) | (_TOP_BIT if _is_negative(x) else 0)
        return int(y[0]).to_bytes(16, "little") + word.to_bytes(16, "little")

    def decode(self, encoded: bytes) -> Point | None:
        """The point of an encoding; None for what no point encodes to: a wrong length, bit 127 set, a coordinate not
        below p, a y without an x, a sign without an x to bear it."""
        if len(encoded) != ENCODED_SIZE:
            return None
        low, high = int.from_bytes(encoded[:16], "little"), int.from_bytes(encoded[16:], "little")
        negative, high = high >= _TOP_BIT, high % _TOP_BIT
        if low >= P or high >= P:
            return None
        p, y = self._p, self._element((low, high))
        square = _times(y, y, p)
        divisor = _plus(_times(self._d, square, p), self._one, p)  # never zero: -1/d is no square
        x = self._root(_times(_minus(square, self._one, p), self._inverse(divisor), p))
        if x is None or (negative and x == (0, 0)):
            return None
        if _is_negative(x) != negative:
            x = _minus(self._zero, x, p)
        return self._affine_point(x, y)

    def _element(self, value: Element) -> Element:
        return self._number(value[0]), self._number(value[1])

    def _affine_point(self, x: Element, y: Element) -> Point:
        return x, y, self._one, _times(x, y, self._p)

    def _ready(self, a: Point) -> Ready:
        p, (x, y, z, t) = self._p, a
        return _plus(y, x, p), _minus(y, x, p), _plus(z, z, p), _times(self._2d, t, p)

    def _inverse(self, a: Element) -> Element:
        p = self._p
        norm = pow(a[0] * a[0] + a[1] * a[1], -1, p)
        return a[0] * norm % p, -a[1] * norm % p

    def _root(self, a: Element) -> Element | None:
        """A square root by those of GF(p), where p = 3 mod 4: the real part squared is (a₀ ± |a|) / 2."""
        p, half, quarter = self._p, self._number(2**126), self._number(2**125)  # 1/2, and the exponent of a root, mod p
        norm = pow(a[0] * a[0] + a[1] * a[1], quarter, p)
        for real_square in ((a[0] + norm) * half % p, (a[0] - norm) * half % p):
            real = pow(real_square, quarter, p)
            imaginary = a[1] * half * pow(real, -1, p) % p if real else pow(-a[0] % p, quarter, p)
            root = real, imaginary
            if _times(root, root, p) == a:
                return root
        return None

    def _odd_multiples(self, a: Point) -> list[Ready]:
        twice = self._ready(_double(a, self._p))
        multiples = [a]
        for _ in range(2 ** (_WNAF - 2) - 1):
            multiples.append(_add(multiples[-1], twice, self._p))
        return [self._ready(multiple) for multiple in multiples]

    @functools.cached_property
    def _generator_multiples(self) -> list[list[AffineReady]]:
        """For each window w and digit k: k · 2^(8w) · G."""
        p, base, points = self._p, self.generator, []
        for _ in range(_windows()):
            step, multiple = self._ready(base), base
            points.append(base)
            for _ in range(2 ** (_WINDOW - 1) - 1):
                multiple = _add(multiple, step, p)
                points.append(multiple)
            base = _double(multiple, p)
        ready = self._affine_ready(points)
        size = 2 ** (_WINDOW - 1)
        return [ready[start : start + size] for start in range(0, len(ready), size)]

    def _affine_ready(self, points: Sequence[Point]) -> list[AffineReady]:
        """All at once by one inversion (Montgomery's trick): what is before each, times what is after it."""
        p, before = self._p, [self._one]
        for _, _, z, _ in points:
            before.append(_times(before[-1], z, p))
        inverse, ready = self._inverse(before[-1]), []
        for (x, y, z, t), product in zip(reversed(points), reversed(before[:-1]), strict=True):
            own = _times(inverse, product, p)
            inverse = _times(inverse, z, p)
            x, y, t = _times(x, own, p), _times(y, own, p), _times(t, own, p)
            ready.append((_plus(y, x, p), _minus(y, x, p), _times(self._2d, t, p)))
        return ready[::-1]


@functools.cache
def curve() -> Curve:
    """The process's curve, its tables built at first use; with GMP's integers where `gmpy2` is installed."""
    try:
        from gmpy2 import mpz
    except ImportError:
        return Curve(int)
    return Curve(mpz)


def _is_negative(x: Element) -> bool:
    return bool((x[0] or x[1]) >> 126)


def _plus(a: Element, b: Element, p: int) -> Element:
    return (a[0] + b[0]) % p, (a[1] + b[1]) % p


def _minus(a: Element, b: Element, p: int) -> Element:
    return (a[0] - b[0]) % p, (a[1] - b[1]) % p


def _times(a: Element, b: Element, p: int) -> Element:
    a0, a1 = a
    b0, b1 = b
    return (a0 * b0 - a1 * b1) % p, (a0 * b1 + a1 * b0) % p


def _add(a: Point, b: Ready, p: int) -> Point:
    x, y, z, t = a
    sum_, difference, double_z, scaled_t = b
    return _finish(
        _times((y[0] - x[0], y[1] - x[1]), difference, p),
        _times((y[0] + x[0], y[1] + x[1]), sum_, p),
        _times(t, scaled_t, p),
        _times(z, double_z, p),
        p,
    )


def _add_affine(a: Point, b: AffineReady, p: int) -> Point:
    x, y, z, t = a
    sum_, difference, scaled_t = b
    return _finish(
        _times((y[0] - x[0], y[1] - x[1]), difference, p),
        _times((y[0] + x[0], y[1] + x[1]), sum_, p),
        _times(t, scaled_t, p),
        (z[0] + z[0], z[1] + z[1]),
        p,
    )


def _finish(a: Element, b: Element, c: Element, d: Element, p: int) -> Point:
    """The common end of the addition formulas (add-2008-hwcd-3 of the Explicit-Formulas Database)."""
    e, h = (b[0] - a[0], b[1] - a[1]), (b[0] + a[0], b[1] + a[1])
    f, g = (d[0] - c[0], d[1] - c[1]), (d[0] + c[0], d[1] + c[1])
    return _times(e, f, p), _times(g, h, p), _times(f, g, p), _times(e, h, p)


def _double(a: Point, p: int) -> Point:
    """dbl-2008-hwcd of the Explicit-Formulas Database, for a = -1."""
    (x0, x1), (y0, y1), (z0, z1), _ = a
    a0, a1 = (x0 + x1) * (x0 - x1), 2 * x0 * x1
    b0, b1 = (y0 + y1) * (y0 - y1), 2 * y0 * y1
    s0, s1 = x0 + y0, x1 + y1
    g0, g1 = (b0 - a0) % p, (b1 - a1) % p
    h0, h1 = (-a0 - b0) % p, (-a1 - b1) % p
    e = ((s0 + s1) * (s0 - s1) + h0) % p, (2 * s0 * s1 + h1) % p
    f = (g0 - 2 * (z0 + z1) * (z0 - z1)) % p, (g1 - 4 * z0 * z1) % p
    g, h = (g0, g1), (h0, h1)
    return _times(e, f, p), _times(g, h, p), _times(f, g, p), _times(e, h, p)


def _negative(a: Ready, p: int) -> Ready:
    return a[1], a[0], a[2], (-a[3][0] % p, -a[3][1] % p)


def _negative_affine(a: AffineReady, p: int) -> AffineReady:
    return a[1], a[0], (-a[2][0] % p, -a[2][1] % p)


def _windows() -> int:
    return -(-(N.bit_length() + 1) // _WINDOW)


def _signed_digits(scalar: int) -> list[int]:
    """Base 256, lowest first, each from -127 to 128."""
    digits = []
    for _ in range(_windows()):
        digit = scalar & (2**_WINDOW - 1)
        scalar >>= _WINDOW
        if digit > 2 ** (_WINDOW - 1):
            digit -= 2**_WINDOW
            scalar += 1
        digits.append(digit)
    return digits


def _wnaf(scalar: int) -> list[int]:
    """Non-adjacent form, highest first: zeros, and odd digits from -15 to 15."""
    digits = []
    while scalar:
        digit = 0
        if scalar & 1:
            digit = scalar & (2**_WNAF - 1)
            if digit >= 2 ** (_WNAF - 1):
                digit -= 2**_WNAF
            scalar -= digit
        digits.append(digit)
        scalar >>= 1
    return digits[::-1]
