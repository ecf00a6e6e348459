import itertools

import pyarrow as pa
import pytest

from levit_batch.sources.casts import fits, plain

I8, I32, I64, U8, U32, U64 = pa.int8(), pa.int32(), pa.int64(), pa.uint8(), pa.uint32(), pa.uint64()
F16, F32, F64 = pa.float16(), pa.float32(), pa.float64()
NUMBERS = {
    I8: (-128, 127), I32: (-(2**31), 2**31 - 1), I64: (-(2**63), 2**63 - 1), U8: (0, 255), U32: (0, 2**32 - 1),
    U64: (0, 2**64 - 1),
}  # fmt: skip


@pytest.mark.parametrize("kind, into", list(itertools.product(NUMBERS, NUMBERS)))
def test_whole_numbers_fit_where_their_range_does(kind, into):
    low, high = NUMBERS[kind]
    assert fits(kind, into) == (NUMBERS[into][0] <= low and high <= NUMBERS[into][1])


@pytest.mark.parametrize("kind, into", list(itertools.product([I8, U8, I32, U32, I64], [F16, F32, F64])))
def test_whole_numbers_fit_a_float_that_counts_that_far(kind, into):
    high = NUMBERS[kind][1]
    step = {F16: 2**11, F32: 2**24, F64: 2**53}[into]
    assert fits(kind, into) == (high <= step)


def test_the_rest():
    assert fits(F32, F64) and not fits(F64, F32) and not fits(F64, I64)
    assert fits(pa.null(), I64) and fits(pa.dictionary(I8, pa.string()), pa.large_string())
    assert fits(pa.large_string(), pa.string()) and not fits(pa.string(), pa.binary()) and not fits(pa.string(), I64)
    assert fits(pa.list_(I8), pa.large_list(I64)) and not fits(pa.list_(I8), pa.list_(I8, 2))
    one, other = pa.struct([("a", I8), ("b", pa.string())]), pa.struct([("a", I64), ("b", pa.large_string())])
    assert fits(one, other) and not fits(other, one) and not fits(one, pa.struct([("a", I64)]))
    assert not fits(pa.bool_(), I8) and not fits(I8, pa.bool_())


def test_views_become_what_they_view():
    nested = pa.struct([("a", pa.list_(pa.string_view())), ("b", pa.binary_view())])
    assert plain(nested) == pa.struct([("a", pa.list_(pa.large_string())), ("b", pa.large_binary())])
    assert plain(I64) == I64
