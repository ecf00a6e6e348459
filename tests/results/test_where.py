"""Conditions as people type them: what they select, and what is refused, and how."""

import pyarrow as pa
import pytest

from levit_batch.errors import ConfigError
from levit_batch.results.where import Where

ROWS = [
    {"row": 0, "label_name": "cat", "score": 0.9, "error": None, "image.path": "a/cat.png", "ok": True},
    {"row": 1, "label_name": "dog", "score": 0.2, "error": None, "image.path": "b/dog.png", "ok": False},
    {"row": 2, "label_name": None, "score": None, "error": "decode: bad", "image.path": "b/x.png", "ok": None},
    {"row": 3, "label_name": "tiger cat", "score": 0.5, "error": None, "image.path": None, "ok": True},
]
TABLE = pa.Table.from_pylist(ROWS).append_column("top", pa.array([[1, 2]] * 4, pa.list_(pa.int64(), 2)))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("score < 0.5", [1]), ("score >= .5", [0, 3]), ("0.1 < score <= 0.5", [1, 3]), ("row != 1", [0, 2, 3]),
        ('label_name == "cat"', [0]), ('label_name in ["cat", "dog"]', [0, 1]), ('label_name not in ("cat",)', [1, 2, 3]),
        ('"cat" in label_name', [0, 3]), ("error is None", [0, 1, 3]), ("error is not None", [2]), ("error != None", [2]),
        ('score < 0.3 or label_name == "cat"', [0, 1]), ("not score < 0.5 and row > 0", [3]), ("ok", [0, 3]), ("not ok", [1]),
        ('image.path == "b/dog.png"', [1]), ("score > -1", [0, 1, 3]), ("row == 0 or (row == 1 and score > 1)", [0]),
        (" row==3 ", [3]),
    ],
)  # fmt: skip
def test_what_a_condition_selects(text, rows):
    where = Where(text, TABLE.schema)
    assert TABLE.filter(where.expression)["row"].to_pylist() == rows
    needed = TABLE.select(where.columns)
    assert needed.filter(where.expression).num_rows == len(rows)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scor < 1", "no column scor; did you mean score"), ("label_name == cat", "no column cat"),
        ("score = 1", "a condition is made of"),
        ("score <", "a condition is made of"), ("", "a condition is made of"), ("score", "is not a condition"),
        ("label_name < 5", "label_name < 5"), ("top == 1", "top == 1"), ("score + 1 < 2", "neither a column nor a value"),
        ("__import__('os').system('true')", "is not a condition"), ("().__class__ == 1", "column"),
        ("score in 5", "after `in` comes a list"), ("score is 5", "None only"), ("(lambda: 1)() < 2", "neither a column"),
        ("[row for row in [1]]", "is not a condition"), ("f'{row}' == 'a'", "neither a column"), ("(" * 5000, "--where"),
    ],
)  # fmt: skip
def test_what_is_refused(text, said):
    with pytest.raises(ConfigError) as error:
        Where(text, TABLE.schema)
    assert said in str(error.value) and str(error.value).startswith("--where")
