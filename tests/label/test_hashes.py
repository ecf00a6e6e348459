"""`predict.hash`: what is written beside each row, whichever way its image is decoded, and what becomes of it later."""

import io
import shutil

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from PIL import Image

from levit_batch.errors import ConfigError
from levit_batch.job.load import load_config
from levit_batch.pixels.hashes import perceptual_hash
from levit_batch.pixels.modes import to_rgb
from levit_batch.table.attempts import ISOLATE_AFTER
from levit_batch.table.scan import scan
from pipelines.label.execute import make_work
from pipelines.label.prepare import prepare
from pipelines.label.replica import DecodeTask, Replica
from pipelines.rescore.prepare import prepare as prepare_rescoring
from pipelines.rescore.run import rescore
from tests.support import DIGITS
from tests.support.jobs import Job
from tests.support.labelled import DIGITS_MODEL, labelled

HASHES = ["shard", "row", "image_hash", "image_phash"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return labelled(tmp_path_factory.mktemp("labelled"), predict={"hash": True}, source={"limit": 300})


def rows(output) -> pa.Table:
    return pa.concat_tables([part.replace_schema_metadata() for part in scan(output)])


def test_each_row_has_the_hashes_of_its_image(table):
    images = {}
    for row in rows(table).to_pylist():
        shard = images.setdefault(row["shard"], None) or pq.read_table(DIGITS / row["shard"])["image"].to_pylist()
        images[row["shard"]] = shard
        data = (shard[row["row"]] or {}).get("bytes")
        assert row["image_hash"] == (None if data is None else xxhash.xxh3_128_hexdigest(data))
        if row["error"] is None:
            assert row["image_phash"] == perceptual_hash(to_rgb(Image.open(io.BytesIO(data))))
        else:
            assert row["image_phash"] is None
    assert rows(table)["image_hash"].null_count == 1 and rows(table)["image_phash"].null_count == 3


@pytest.mark.parametrize("way", ["decoded apart", "isolated"])
def test_whichever_way_it_is_decoded(table, tmp_path, way):
    job = Job(tmp_path, DIGITS_MODEL, model={"backend": "torch"}, predict={"hash": True}, source={"limit": 128})
    prepared = prepare(load_config(str(job.file)), False)
    work = make_work(prepared, "run", False)
    replica, decoder = Replica(work, prepared.runnable), DecodeTask(work)
    for chunk in prepared.chunks:
        if way == "isolated":
            for _ in range(ISOLATE_AFTER):
                replica.decoder.attempts.begin(chunk, "decode")  # and never came back
            assert replica.label(chunk)["attempt"] > ISOLATE_AFTER
        else:
            list(replica(decoder.decode(chunk)))
    assert rows(prepared.output).select(HASHES).equals(rows(table).select(HASHES).slice(0, 128))


def test_other_heads_carry_them(table, tmp_path):
    new = prepare_rescoring(str(table), str(DIGITS_MODEL), str(tmp_path / "new"))
    rescore(new)
    assert rows(new.output).select(HASHES).equals(rows(table).select(HASHES))
    without = prepare_rescoring(str(table), str(DIGITS_MODEL), str(tmp_path / "without"), ["predict.hash=false"])
    rescore(without)
    assert not {"image_hash", "image_phash"} & set(rows(without.output).schema.names)
    with pytest.raises(ConfigError, match="has no hashes, and they take the images"):
        prepare_rescoring(str(without.output), str(DIGITS_MODEL), str(tmp_path / "again"), ["predict.hash=true"])


def test_copies_in_any_engine(tmp_path):
    """What the documentation says, with one shard there under two names."""
    (tmp_path / "source").mkdir()
    for name in ("a.parquet", "b.parquet"):
        shutil.copy(sorted(DIGITS.iterdir())[0], tmp_path / "source" / name)
    output = labelled(tmp_path, predict={"hash": True, "embeddings": "none"}, source={"path": f"{tmp_path}/source/*.parquet"})
    table = f"'{output}/data/**/*.parquet'"
    exact = duckdb.sql(f"SELECT count(*) FROM {table} GROUP BY image_hash").fetchall()
    assert exact == [(2,)] * (len(rows(output)) // 2)
    near = "bit_count(xor(a.image_phash, b.image_phash)) <= 2 AND a.row = b.row AND a.shard < b.shard"
    pairs = duckdb.sql(f"SELECT count(*) FROM {table} a JOIN {table} b ON {near}").fetchall()
    assert pairs == [(rows(output)["error"].null_count // 2,)]
