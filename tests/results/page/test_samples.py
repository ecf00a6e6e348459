"""The rows worth a look, and their pictures read again from the source."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from levit_batch.results.looks import ERRORS, LEAST, MISTAKES, SUREST
from levit_batch.results.page.samples import EDGE, pick_samples, thumbnail, thumbnails
from levit_batch.sources.source import open_source
from tests.support.outputs import CLASSES, COLOURS, make_output


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_output(tmp_path_factory.mktemp("samples"), rows=60, bad=10)


def keys(samples, group):
    return [(s["shard"], s["row"]) for s in samples if s["group"] == group]


def ordered(table: pa.Table, order: str, n: int):
    table = table.append_column("place", pa.array(range(table.num_rows)))
    rows = table.sort_by([("score", order), ("place", "ascending")]).slice(0, n)
    return list(zip(rows["shard"].to_pylist(), rows["row"].to_pylist(), strict=True))


def test_the_surest_the_least_sure_and_the_surest_mistakes(made):
    samples = pick_samples(made.output, 7)
    good = made.table.filter(pc.is_null(made.table["error"]))
    wrong = good.filter(pc.fill_null(pc.not_equal(good["label"], good["target"]), False))
    assert keys(samples, SUREST) == ordered(good, "descending", 7)
    assert keys(samples, LEAST) == ordered(good, "ascending", 7)
    assert keys(samples, MISTAKES) == ordered(wrong, "descending", 7)
    for sample in samples:
        if sample["group"] == MISTAKES:
            assert sample["target_name"] in CLASSES and sample["target_name"] != sample["label_name"]


def test_error_rows_of_each_kind(made):
    errors = [s for s in pick_samples(made.output, 3) if s["group"] == ERRORS]
    assert [s["error"].split(":")[0] for s in errors] == ["decode"] * 3 + ["null"] * 3


def test_fewer_rows_than_asked_for(tmp_path):
    made = make_output(tmp_path, rows=3, shards=1, bad=1, target=None)
    samples = pick_samples(made.output, 12)
    assert len(keys(samples, SUREST)) == len(keys(samples, LEAST)) == 2 and not keys(samples, MISTAKES)


def test_pictures_are_those_of_the_rows(made):
    samples = thumbnails(open_source(made.config.source), pick_samples(made.output, 5))
    by_key = {(r["shard"], r["row"]): r for r in made.table.select(["shard", "row", "target"]).to_pylist()}
    seen = 0
    for sample in samples:
        target = by_key[sample["shard"], sample["row"]]["target"]
        if sample["error"] is not None:
            assert sample["image"] is None
        elif target is not None:
            pixels = np.asarray(Image.open(io.BytesIO(sample["image"])))
            assert np.abs(pixels.mean((0, 1)) - COLOURS[target]).max() < 12
            seen += 1
    assert seen >= 10


def test_rows_that_cannot_be_read_any_more_say_why(tmp_path):
    made = make_output(tmp_path)
    samples = pick_samples(made.output, 40)
    files = sorted(Path(tmp_path / "source").iterdir())
    files[0].unlink()
    pq.write_table(pq.read_table(files[1]).slice(1), files[1])
    notes = {s["shard"]: s for s in thumbnails(open_source(made.config.source), samples) if s["error"] is None}
    assert "not in the source any more" in notes["part-00.parquet"]["note"]
    assert "has changed since" in notes["part-01.parquet"]["note"]
    assert notes["part-02.parquet"]["note"] is None and notes["part-02.parquet"]["image"]


def test_a_source_that_is_gone_costs_the_pictures_only(tmp_path):
    made = make_output(tmp_path)
    samples, source = pick_samples(made.output, 2), open_source(made.config.source)
    for file in Path(tmp_path / "source").iterdir():
        file.unlink()
    assert all("cannot be read any more" in s["note"] for s in thumbnails(source, samples))


def test_time_is_bounded(made):
    late = thumbnails(open_source(made.config.source), pick_samples(made.output, 2), seconds=-1)
    assert all("took too long" in s["note"] for s in late if s["error"] is None)


def test_thumbnail_keeps_the_aspect_ratio():
    data = thumbnail(np.zeros((100, 800, 3), np.uint8))
    assert data[:2] == b"\xff\xd8" and Image.open(io.BytesIO(data)).size == (EDGE, EDGE // 8)
