import itertools

import pyarrow as pa
import pytest

from levit_batch.sources.columns.types import cast, fits, has_list_views, plain, without_lengths

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
    assert fits(pa.map_(I8, pa.list_(I8, 2)), pa.map_(I64, pa.list_(I8))) and not fits(pa.map_(I8, I64), pa.map_(I8, I8))
    one, other = pa.struct([("a", I8), ("b", pa.string())]), pa.struct([("a", I64), ("b", pa.large_string())])
    assert fits(one, other) and not fits(other, one) and not fits(one, pa.struct([("a", I64)]))
    assert not fits(pa.bool_(), I8) and not fits(I8, pa.bool_())


def test_views_become_what_they_view():
    nested = pa.struct([("a", pa.list_(pa.string_view())), ("b", pa.binary_view())])
    assert plain(nested) == pa.struct([("a", pa.list_(pa.large_string())), ("b", pa.large_binary())])
    assert plain(I64) == I64
    categories = pa.dictionary(pa.uint32(), pa.string_view(), True)
    assert plain(categories) == pa.dictionary(pa.uint32(), pa.large_string(), True)
    assert plain(pa.map_(pa.string_view(), I8)) == pa.map_(pa.large_string(), I8)
    assert plain(pa.decimal32(5, 2)) == pa.decimal128(5, 2) and plain(pa.decimal256(50, 2)) == pa.decimal256(50, 2)


def test_runs_are_written_out():
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3, 5], pa.int32()), pa.array([1, None, 7], I8))
    assert plain(runs.type) == I8
    for column in (runs, pa.chunked_array([runs])):
        assert cast(column.slice(1, 3), I64).to_pylist() == [1, None, 7]


def test_list_views_are_found_at_any_depth():
    views = pa.list_view(I8)
    for kind in (views, pa.large_list_view(I8), pa.map_(I8, pa.list_(views)), pa.struct([("a", I8), ("b", views)])):
        assert has_list_views(kind)
    assert not has_list_views(pa.map_(pa.string_view(), pa.list_(I8, 2)))


def test_lengths_go_and_nulls_stay():
    fixed = pa.list_(I8, 2)
    kind = pa.struct([("a", fixed), ("b", pa.map_(pa.string(), pa.large_list(fixed)))])
    rows = pa.array([{"a": None, "b": [("x", [None, [1, None]])]}, None, {"a": [3, 4], "b": None}], kind)
    wanted = pa.struct([("a", pa.list_(I8)), ("b", pa.map_(pa.string(), pa.large_list(pa.list_(I8))))])
    assert without_lengths(kind) == wanted and without_lengths(pa.list_(fixed, 3)) == pa.list_(pa.list_(I8))
    for part in (rows, rows.slice(1)):
        assert cast(part, wanted).to_pylist() == part.to_pylist()
