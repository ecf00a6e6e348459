"""The digits that ship with the demo: what the command makes is what is in the repository."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import RowError
from levit_batch.job.chunks import plan_chunks
from levit_batch.job.config import JobConfig, SourceConfig
from levit_batch.job.load import load_config
from levit_batch.job.row import IMAGE_BYTES, READ_ERROR, TARGET
from levit_batch.pixels.decode import decode
from levit_batch.sources.source import open_source
from tests.golden.make_demo import BROKEN, NAMES, digits, write_demo
from tests.support import CONFIGS

DEMO = CONFIGS / "demo"
KINDS = {"truncated": "truncated", "not-an-image": "decode", "null": "null", "empty": "empty", "missing": "missing",
         "bomb": "bomb", "damaged": "decode"}  # fmt: skip


def table(folder: Path, half: str) -> pa.Table:
    return pa.concat_tables(pq.read_table(file) for file in sorted((folder / half).glob("*.parquet")))


def rows(half: str) -> list[dict]:
    source = open_source(SourceConfig(path=str(DEMO / half), target_column="label"))
    chunks = plan_chunks(source.shards(), 128)
    return [row for chunk in chunks for part in source.read(chunk) for row in part.to_pylist()]


def outcome(row: dict) -> np.ndarray | str:
    """The pixels, or the kind of error."""
    if row[READ_ERROR]:
        return row[READ_ERROR].split(":")[0]
    try:
        return decode(row[IMAGE_BYTES], max_pixels=178_956_970)
    except RowError as error:
        return error.kind


@pytest.mark.parametrize("half", ["label", "train"])
def test_shipped_shards_are_what_the_command_makes(half, tmp_path):
    write_demo(tmp_path)
    shipped, made = table(DEMO, half), table(tmp_path, half)
    assert made.schema.equals(shipped.schema, check_metadata=True)
    assert made.drop_columns("image").equals(shipped.drop_columns("image"))
    assert [v and v["path"] for v in made["image"].to_pylist()] == [
        v and v["path"] for v in shipped["image"].to_pylist()
    ]


@pytest.mark.parametrize("half", ["label", "train"])
def test_good_rows_show_their_digit_and_broken_ones_fail_as_documented(half):
    images, targets = digits()
    index = table(DEMO, half)["index"].to_pylist()
    for number, row in enumerate(rows(half)):
        assert row[TARGET] == targets[index[number]]
        got = outcome(row)
        if number in BROKEN[half]:
            assert got == KINDS[BROKEN[half][number]], number
        else:
            ink = np.rint(255 - images[index[number]] * (255 / 16))
            np.testing.assert_array_equal(got[::4, ::4, 0], ink)
            assert got.shape == (32, 32, 3)


def test_halves_share_no_image_and_hold_all():
    both = [table(DEMO, half)["index"].to_pylist() for half in ("label", "train")]
    assert sorted(both[0] + both[1]) == list(range(1797))


def test_paths_name_what_is_broken():
    values = table(DEMO, "label")["image"].to_pylist()
    named = {n: "-".join(v["path"].removesuffix(".png").split("-")[2:]) for n, v in enumerate(values) if v}
    assert {n: kind for n, kind in named.items() if kind} == {n: k for n, k in BROKEN["label"].items() if k != "null"}
    assert [n for n, v in enumerate(values) if v is None] == [n for n, k in BROKEN["label"].items() if k == "null"]


def test_features_carry_class_names_and_the_whole_demo_is_small():
    schema = table(DEMO, "label").schema
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["label"] == {"names": list(NAMES), "_type": "ClassLabel"}
    assert features["image"] == {"_type": "Image"}
    assert sum(file.stat().st_size for file in DEMO.rglob("*.parquet")) < 1_000_000


def test_demo_job_has_several_shards_and_chunks_and_tolerates_its_errors():
    config = load_config(str(DEMO.parent / "demo.yaml"), schema=JobConfig)
    source = open_source(config.source.model_copy(update={"path": str(DEMO / "label")}))
    shards = list(source.shards())
    chunks = list(plan_chunks(shards, config.compute.chunk_rows))
    assert len(shards) == 4 and len(chunks) == 8
    assert len(BROKEN["label"]) / sum(shard.rows for shard in shards) <= config.output.max_error_rate
