# SPDX-License-Identifier: Apache-2.0
"""The sizes of a trial, and its numbers, as every back end must make them. Pure.

All arithmetic is exact: entries are whole numbers within ±127, and a sum of `DEPTH_MAX` products of them stays far
below 2^24, which float32 holds exactly in any order of summing.
"""

import hashlib
from typing import Any, Final

import numpy as np

from qubix_protocol.arrays import Array
from qubix_protocol.trials import TrialShape

COLUMNS: Final = 1024
PAGES_MAX: Final = 16_384
ROWS_MIN: Final = 64
DEPTH_MAX: Final = 16_384
DEPTH_STEP: Final = 8
DEPTH_MIN: Final = {"cpu": 256, "cuda": 1024}
"""So many products a word: below it a device could make a page again almost as fast as it reads it."""
WORD_BYTES: Final = 4
SPREAD: Final = 255
HALF: Final = 127
ROW_STEP, COLUMN_STEP = 0x9E3779B1, 0x85EBCA77
MIX_1, MIX_2 = 0x85EBCA6B, 0xC2B2AE35
DIGEST_1, DIGEST_2 = 0x9E3779B1, 0x27D4EB2F


def shape_of(fill_bytes: int, flops: float, backend: str) -> TrialShape:
    """Fills at most `fill_bytes`, and computes about `flops`, never so little that memory need not be kept."""
    rows_wanted = max(ROWS_MIN, fill_bytes // (WORD_BYTES * COLUMNS))
    rows = max(ROWS_MIN, -(-rows_wanted // PAGES_MAX))
    pages = max(1, rows_wanted // rows)
    depth = flops / (4.0 * pages * rows * COLUMNS)
    least = DEPTH_MIN.get(backend, max(DEPTH_MIN.values()))
    whole = int(min(DEPTH_MAX, max(least, depth))) // DEPTH_STEP * DEPTH_STEP
    return TrialShape(pages=pages, rows=rows, columns=COLUMNS, depth=whole)


def fill_bytes(shape: TrialShape) -> int:
    return WORD_BYTES * shape.pages * shape.rows * shape.columns


def flops(shape: TrialShape) -> float:
    """Of a multiplication and an addition each."""
    return 4.0 * shape.pages * shape.rows * shape.columns * shape.depth


def secret_of(secret: bytes, device_id: str, purpose: str) -> tuple[int, int]:
    """Two words that belong to one device of the trial."""
    made = hashlib.sha256(b"\0".join([purpose.encode(), device_id.encode(), secret])).digest()
    return int.from_bytes(made[:4], "big"), int.from_bytes(made[4:8], "big")


def mixed(words: Array) -> Array:
    """Each uint32 thoroughly stirred, in place (the finaliser of MurmurHash3)."""
    words ^= words >> np.uint32(16)
    words *= np.uint32(MIX_1)
    words ^= words >> np.uint32(13)
    words *= np.uint32(MIX_2)
    words ^= words >> np.uint32(16)
    return words


def entries(seed: tuple[int, int], first_row: int, rows: int, columns: int) -> Array:
    """Rows of a seeded matrix, float32 of shape (rows, columns): whole numbers within ±127."""
    with np.errstate(over="ignore"):
        down = np.arange(first_row, first_row + rows, dtype=np.uint32) * np.uint32(ROW_STEP) + np.uint32(seed[0])
        across = np.arange(columns, dtype=np.uint32) * np.uint32(COLUMN_STEP) + np.uint32(seed[1])
        words = mixed(mixed(down)[:, None] ^ across[None, :])
    made: Array = (words % np.uint32(SPREAD)).astype(np.float32)
    made -= np.float32(HALF)
    return made


def packed(product: Array) -> Array:
    """Words of shape (rows, columns) of a product with twice as many columns: the low halves of two numbers each."""
    whole = product.astype(np.int32).view(np.uint32) & np.uint32(0xFFFF)
    half = product.shape[1] // 2
    words: Array = whole[:, :half] | whole[:, half:] << np.uint32(16)
    return words


def places(key: tuple[int, int], shape: TrialShape) -> Array:
    """What each word of a page is laid over before it is digested: the same for all pages of a device."""
    with np.errstate(over="ignore"):
        places = np.arange(shape.rows * shape.columns, dtype=np.uint32) * np.uint32(ROW_STEP) + np.uint32(key[0])
        return mixed(places) ^ np.uint32(key[1])


def digest(page: Array, at: Array, room: Array, spare: Array) -> int:
    """Of one page, 32 bits; `room` and `spare` are overwritten. Not linear in the words, so that it cannot be had from
    the factors of the product."""
    np.bitwise_xor(page.reshape(-1), at, out=room)
    np.multiply(room, np.uint32(DIGEST_1), out=room)
    np.right_shift(room, np.uint32(15), out=spare)
    np.bitwise_xor(room, spare, out=room)
    np.multiply(room, np.uint32(DIGEST_2), out=room)
    np.right_shift(room, np.uint32(13), out=spare)
    np.bitwise_xor(room, spare, out=room)
    return int(np.add.reduce(room, dtype=np.uint32))


class Right:
    """The right factor of one device, for as long as pages are made of it."""

    def __init__(self, shape: TrialShape, seed: bytes, device_id: str) -> None:
        self._shape, self._left = shape, secret_of(seed, device_id, "left")
        self.matrix: Final = entries(secret_of(seed, device_id, "right"), 0, shape.depth, 2 * shape.columns)

    def page(self, number: int) -> Array:
        left = entries(self._left, number * self._shape.rows, self._shape.rows, self._shape.depth)
        return packed(left @ self.matrix)


def expected(shape: TrialShape, seed: bytes, key: bytes, device_id: str, pages: list[int]) -> list[int]:
    """The digests of some pages, made from nothing. Takes 4 × rows × columns × depth operations each."""
    right, at = Right(shape, seed, device_id), places(secret_of(key, device_id, "key"), shape)
    room, spare = np.empty_like(at), np.empty_like(at)
    return [digest(right.page(number), at, room, spare) for number in pages]


def read_digests(raw: bytes) -> Any:
    """As they were sent: 32 bits each, big-endian."""
    return np.frombuffer(raw, dtype=">u4")
