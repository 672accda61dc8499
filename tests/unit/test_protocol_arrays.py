# SPDX-License-Identifier: Apache-2.0
import io
import pickle

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qubix_protocol.arrays import (
    DTYPES,
    Array,
    ArrayMeta,
    from_npy,
    npy_header,
    npy_prefix,
    pack_arrays,
    to_npy,
    unpack_arrays,
)
from qubix_protocol.errors import Malformed

any_array = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: hnp.arrays(np.dtype(name), hnp.array_shapes(min_dims=0, max_dims=4, max_side=5, min_side=0))
)


@given(any_array)
def test_npy_round_trip(array: Array) -> None:
    found = from_npy(to_npy(array))
    assert ArrayMeta.of(found) == ArrayMeta.of(array)
    np.testing.assert_array_equal(found, array)
    assert not found.flags.writeable


@given(any_array)
def test_numpy_itself_reads_what_we_write(array: Array) -> None:
    np.testing.assert_array_equal(np.load(io.BytesIO(to_npy(array)), allow_pickle=False), array)
    prefixed = npy_prefix(ArrayMeta.of(array)) + np.ascontiguousarray(array).tobytes()
    np.testing.assert_array_equal(np.load(io.BytesIO(prefixed), allow_pickle=False), array)


@given(st.dictionaries(st.sampled_from(["c", "indices", "x"]), any_array))
def test_packed_arrays_round_trip(arrays: dict[str, Array]) -> None:
    found = unpack_arrays(pack_arrays(arrays))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert ArrayMeta.of(found[name]) == ArrayMeta.of(array)
        np.testing.assert_array_equal(found[name], array)


def test_fortran_and_big_endian_arrays_keep_their_values() -> None:
    array = np.asfortranarray(np.arange(12, dtype=">f4").reshape(3, 4))
    for found in (from_npy(to_npy(array)), unpack_arrays(pack_arrays({"a": array}))["a"]):
        np.testing.assert_array_equal(found, array)
        assert found.dtype == np.dtype("<f4")


def _saved(array: Array, **options: bool) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"not numpy at all" * 10,
        pickle.dumps([1, 2]),
        _saved(np.array([{"a": 1}], dtype=object), allow_pickle=True),
        _saved(np.zeros(3, dtype=[("a", "f4")])),
        _saved(np.asfortranarray(np.zeros((3, 4)))),
        _saved(np.zeros(3, dtype=">f8")),
        _saved(np.zeros(3, dtype="U4")),
        to_npy(np.zeros(5))[:-1],
        to_npy(np.zeros(5)) + b"x",
        npy_prefix(ArrayMeta("float32", (2**40, 2**20))),
        npy_prefix(ArrayMeta("float32", (-1,))),
    ],
)
def test_d3_what_is_not_a_plain_array_is_malformed_and_never_unpickled(data: bytes) -> None:
    with pytest.raises(Malformed):
        from_npy(data)


@given(st.binary(max_size=300))
def test_garbage_is_malformed_and_never_more(data: bytes) -> None:
    for read in (from_npy, npy_header):
        with pytest.raises(Malformed):
            read(b"\x93NUMPY\x01\x00" + data)  # type: ignore[operator]
    try:
        unpack_arrays(data)
    except Malformed:
        return
    assert data == b"\x80"  # the only short garbage that is a map: an empty one


@pytest.mark.parametrize(
    "value",
    [
        {"c": 5},
        {"c": b"bytes"},
        [1, 2],
        {"c": msgpack.ExtType(2, b"x")},
        {"c": msgpack.ExtType(1, b"")},
        {"c": msgpack.ExtType(1, bytes([11]) + msgpack.packb(["float32", [4]]) + b"short")},
        {"c": msgpack.ExtType(1, bytes([9]) + msgpack.packb(["object", [1]]) + bytes(8))},
    ],
)
def test_only_maps_of_whole_arrays_unpack(value: object) -> None:
    with pytest.raises(Malformed):
        unpack_arrays(msgpack.packb(value))
