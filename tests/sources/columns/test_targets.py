import pickle

import pyarrow as pa
import pytest

from levit_batch.errors import SourceError
from levit_batch.sources.columns.targets import TargetMap

MODEL = ["tench, Tinca tinca", "Great_White shark", "crane", "crane", "0"]


def applied(target_map, values, kind):
    found, missed = target_map.apply(pa.array(values, kind))
    assert found.type == target_map.output_type
    names = missed.drop_null()
    return found.to_pylist(), (names.flatten() if pa.types.is_list(names.type) else names).to_pylist()


def test_numbers_without_names_are_the_models():
    target_map = TargetMap.make(pa.int64(), None, MODEL)
    assert applied(target_map, [0, 4, 5, -1, None, -7], pa.int64()) == ([0, 4, None, None, None, None], ["5", "-7"])


def test_numbers_with_names_in_another_order_are_remapped_by_name():
    names = ["crane", "great white shark", "somewhere else", "crane", "tench, Tinca tinca"]
    target_map = pickle.loads(pickle.dumps(TargetMap.make(pa.int8(), names, MODEL)))
    assert applied(target_map, [0, 1, 2, 3, 4], pa.int8()) == ([2, 1, None, 3, 0], ["somewhere else"])


def test_the_models_own_list_is_taken_as_it_is():
    target_map = TargetMap.make(pa.int64(), MODEL, MODEL)
    assert applied(target_map, [0, 1, 2, 3, 4], pa.int64()) == ([0, 1, 2, 3, 4], [])


def test_a_model_that_only_numbers_its_classes_takes_the_sources_order():
    target_map = TargetMap.make(pa.int64(), ["cat", "dog"], ["LABEL_0", "LABEL_1"])
    assert applied(target_map, [1, 0], pa.int64()) == ([1, 0], [])


def test_digits_as_names_are_names():
    target_map = TargetMap.make(pa.int64(), ["1", "0"], ["0", "1"])
    assert applied(target_map, [0, 1], pa.int64()) == ([1, 0], [])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_names_exact_then_loose_then_first_synonym(kind):
    target_map = TargetMap.make(kind, None, MODEL)
    values = ["tench, Tinca tinca", "great-white  SHARK", "tench", "0", None, "crane", "unknown"]
    assert applied(target_map, values, kind) == ([0, 1, 0, 4, None, None, None], ["crane", "unknown"])


def test_values_that_stand_for_names():
    target_map = TargetMap.make(pa.string(), ["n01440764\ttench, Tinca tinca", "n1\tGreat_White shark"], MODEL)
    assert applied(target_map, ["n1", "n01440764", "n2"], pa.string()) == ([1, 0, None], ["n2"])


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.large_list(pa.int16()), pa.list_(pa.int32(), 2)])
def test_several_truths(kind):
    target_map = TargetMap.make(kind, None, MODEL)
    assert applied(target_map, [[0, 4], None, [9, 1]], kind) == ([[0, 4], None, [1]], ["9"])


def test_lists_of_names_sliced():
    target_map = TargetMap.make(pa.list_(pa.string()), None, MODEL)
    column = pa.array([["x"], ["tench", "nobody"], [], None, ["0"]])[1:]
    found, missed = target_map.apply(column)
    assert found.to_pylist() == [[0], [], None, [4]] and missed.to_pylist() == [["nobody"], [], None, []]


def test_names_that_match_nothing_are_cut_to_what_a_report_shows():
    target_map = TargetMap.make(pa.string(), None, MODEL)
    found = applied(target_map, ["", "two\n lines", "a" * 50, "https://user:secret@host/x.png"], pa.string())[1]
    assert found[:3] == ["(empty)", "two lines", "a" * 39 + "…"] and "secret" not in found[3]


def test_refusals():
    with pytest.raises(SourceError, match="none of its 2 class names"):
        TargetMap.make(pa.int64(), ["cat", "dog"], MODEL)
    with pytest.raises(SourceError, match="double"):
        TargetMap.make(pa.float64(), None, MODEL)
