import io
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import ConfigError, SourceError
from levit_batch.job.chunks import Chunk, plan_chunks
from levit_batch.job.row import IMAGE_BYTES, KEPT, READ_ERROR, TARGET
from tests.support.outputs import CLASSES, make_output
from tests.support.shards import expected, good, named, open_at, pictures, read_all, table, write_parquet

KEEP = {"target_column": "label", "keep_columns": ["caption"]}


@pytest.fixture
def folder(tmp_path):
    return write_parquet(tmp_path / "in", pictures())


def test_chunks_in_any_order_and_left_half_read(folder):
    source = open_at(folder, **KEEP)
    chunks = list(plan_chunks(source.shards(), 5))
    next(source.read(chunks[1]))
    rows = {chunk: named(pa.concat_tables(source.read(chunk)), source) for chunk in reversed(chunks)}
    assert good(pa.concat_tables(rows[chunk] for chunk in chunks)) == expected(pictures())


def test_a_cursor_reads_a_large_row_group_once(tmp_path, monkeypatch):
    write_parquet(tmp_path / "in", pictures(), shards=1, group=1000)
    source = open_at(tmp_path / "in", **KEEP)
    opened = []
    rows_from = source.rows_from
    source._cursor._rows_from = lambda chunk, first: opened.append(first) or rows_from(chunk, first)
    assert good(read_all(source, 10)) == expected(pictures())
    assert opened == [0]


def test_memory_does_not_grow_with_the_row_group(tmp_path):
    image = pictures()[1].data * 40  # about 2 MB
    rows = pa.table({"image": pa.array([image] * 150, pa.large_binary())})  # 300 MB in one row group
    plain = {"compression": None, "use_dictionary": False, "write_batch_size": 4}  # a page of four images
    pq.write_table(rows, tmp_path / "one.parquet", row_group_size=1000, **plain)
    del rows
    source = open_at(tmp_path)
    list(source.shards())
    chunk = Chunk("one.parquet", str(tmp_path / "one.parquet"), source.files[0].version, 100, 140)
    before, most, read = pa.total_allocated_bytes(), 0, 0
    for batch in source.read(chunk):
        most, read = max(most, pa.total_allocated_bytes() - before), read + batch.num_rows
        del batch
    assert read == 40
    assert most < 120_000_000 < 150 * len(image) / 2


def test_a_shard_that_changed_after_planning_is_not_read(folder):
    source = open_at(folder)
    chunk = next(iter(plan_chunks(source.shards(), 100)))
    write_parquet(folder, pictures()[:30], group=6)
    with pytest.raises(OSError, match="changed since the job was planned"):
        list(source.read(chunk))


def test_damaged_pages_cost_the_rest_of_their_row_group(tmp_path):
    folder = write_parquet(tmp_path / "in", pictures(), shards=1, group=20)
    path = folder / "train-00000-of-00001.parquet"
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(1).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(data)
    rows = read_all(open_at(folder, **KEEP))
    errors = rows[READ_ERROR].to_pylist()
    assert [error is None for error in errors] == [True] * 20 + [False] * 20 + [True] * 20
    assert errors[20].startswith("unreadable: row group 1 is damaged")
    assert rows[IMAGE_BYTES].to_pylist()[40:] == [p.data for p in pictures()[40:]]


def test_columns_that_are_not_there(folder):
    with pytest.raises(SourceError, match="did you mean image"):
        list(open_at(folder, image_column="imege").shards())
    with pytest.raises(SourceError, match="source.image_column: label is int64"):
        list(open_at(folder, image_column="label").shards())
    write_parquet(folder / "more", pictures()[:3], shards=1)
    pq.write_table(pa.table({"other": [1]}), folder / "more" / "z.parquet")
    with pytest.raises(SourceError, match="more/z.parquet: source.image_column: there is no column image"):
        list(open_at(folder).shards())


def test_types_that_hold_the_same_values_are_cast(folder):
    rows = table(pictures())
    rows = rows.set_column(1, "label", rows["label"].cast(pa.int8()))
    rows = rows.set_column(2, "caption", rows["caption"].cast(pa.large_string()).combine_chunks())
    rows = rows.set_column(0, "image", pa.array([p.data for p in pictures()], pa.binary()))
    pq.write_table(rows, folder / "z.parquet")
    source = open_at(folder, **KEEP)
    assert good(read_all(source)) == expected(pictures()) * 2
    assert source.kept().field("caption").type == pa.string()


def test_types_that_would_lose_values_are_refused_by_name(folder):
    rows = table(pictures())
    pq.write_table(rows.set_column(1, "label", rows["label"].cast(pa.float64())), folder / "z.parquet")
    with pytest.raises(SourceError, match="z.parquet: column label is double here and int64 in the first shard"):
        list(open_at(folder, **KEEP).shards())
    assert len(list(open_at(folder, keep_columns=["caption"]).shards())) == 4


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_binary_image_columns(tmp_path, kind):
    images = pa.array([p.data for p in pictures()[:5]], pa.binary()).cast(kind)
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet")
    assert read_all(open_at(tmp_path))[IMAGE_BYTES].to_pylist() == [p.data for p in pictures()[:5]]


def test_struct_fields_are_kept_alone(folder):
    rows = read_all(open_at(folder, keep_columns=["image.path"]))
    assert rows["image.path"].to_pylist() == [p.name for p in pictures()]
    assert TARGET not in rows.schema.names


def test_columns_called_as_those_of_this_package_are_kept_apart(tmp_path):
    rows = table(pictures()[:5])
    names = ["target", "__target", "__bytes", "__error", "__kept_0", "__kept_1", "image.path", "path"]
    for i, name in enumerate(names):
        rows = rows.append_column(name, pa.array(range(10 * i, 10 * i + 5)))
    pq.write_table(rows, tmp_path / "x.parquet")
    source = open_at(tmp_path, target_column="label", keep_columns=names)
    read = pa.concat_tables(source.read(next(iter(plan_chunks(source.shards(), 10)))))
    assert read[IMAGE_BYTES].to_pylist() == [p.data for p in pictures()[:5]] and read[READ_ERROR].null_count == 5
    assert read[TARGET].to_pylist() == [p.label for p in pictures()[:5]]
    for i in range(len(names)):
        assert read[KEPT.format(i)].to_pylist() == list(range(10 * i, 10 * i + 5))


def test_two_columns_of_one_name_matter_only_where_they_are_needed(tmp_path):
    rows = table(pictures()[:5])
    pq.write_table(rows, tmp_path / "a.parquet")
    twice = rows.append_column("caption", rows["caption"]).append_column("label", rows["label"])
    pq.write_table(twice, tmp_path / "b.parquet")
    assert read_all(open_at(tmp_path)).num_rows == read_all(open_at(tmp_path / "b.parquet")).num_rows * 2 == 10
    for options in ({"keep_columns": ["caption"]}, {"target_column": "label"}):
        key, said = next(iter(options.items()))
        name = said if isinstance(said, str) else said[0]
        with pytest.raises(SourceError, match=f"b.parquet: source.{key}: several columns are called {name}"):
            list(open_at(tmp_path, **options).shards())
    pq.write_table(rows.append_column("image", rows["image"]), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match="b.parquet: source.image_column: several columns are called image"):
        list(open_at(tmp_path / "b.parquet").shards())


CLASHES = [
    ["row", "source_row"], ["caption", "caption"], ["caption", "CAPTION"], ["label", "Source_Label"], ["Row", "row"],
]  # fmt: skip


@pytest.mark.parametrize("names", CLASHES, ids=str)
def test_kept_columns_that_would_have_one_name_are_refused_when_planned(tmp_path, names):
    rows = table(pictures()[:5])
    for name in {*names} - {*rows.schema.names}:
        rows = rows.append_column(name, rows["label"])
    pq.write_table(rows, tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match=f"source.keep_columns: {names[0]} and {names[1]} would both be called"):
        list(open_at(tmp_path, keep_columns=names).shards())


def test_several_places_with_files_of_one_name(tmp_path):
    for name in ("a", "b"):
        write_parquet(tmp_path / name, pictures()[:6], shards=1)
    source = open_at([str(tmp_path / "a"), str(tmp_path / "b")])
    assert [shard.name for shard in source.shards()] == [f"{x}/train-00000-of-00001.parquet" for x in "ab"]
    source = open_at(f"{tmp_path}/*/train-*.parquet")
    assert [shard.name for shard in source.shards()] == [f"{x}/train-00000-of-00001.parquet" for x in "ab"]


def test_footers_alone_make_the_plan(folder, monkeypatch):
    source = open_at(folder)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", None)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", None)
    assert [shard.rows for shard in source.shards()] == [20, 20, 20]


def test_class_names_from_a_file(folder, tmp_path):
    (tmp_path / "names.txt").write_text("tea\r\nrose\n")
    assert open_at(folder, class_names=str(tmp_path / "names.txt")).target_names == ["tea", "rose"]
    with pytest.raises(SourceError, match="class_names"):
        assert open_at(folder, class_names=str(tmp_path / "none.txt")).target_names


def test_a_stream_that_breaks_off_is_read_on_from_there(folder, monkeypatch):
    monkeypatch.setattr("levit_batch.storage.retry.FIRST_WAIT", 0.001)
    source = open_at(folder, **KEEP)
    breaks = {"left": 4}
    real = source.rows_from

    def breaking(chunk, first):
        for i, rows in enumerate(real(chunk, first)):
            if i == 1 and breaks["left"]:
                breaks["left"] -= 1
                raise ConnectionResetError("reset by peer")
            yield rows

    source._cursor._rows_from = breaking
    assert good(read_all(source, 20)) == expected(pictures())
    assert breaks["left"] == 0


def test_buffers_of_other_writers(tmp_path):
    stream = io.BytesIO()
    pq.write_table(table(pictures()[:4]), stream, version="1.0", compression="gzip")
    (tmp_path / "old.PARQUET").write_bytes(stream.getvalue())
    assert read_all(open_at(tmp_path)).num_rows == 4


def test_class_names_of_a_table_of_ours_are_those_of_its_job(tmp_path):
    made = make_output(tmp_path)
    ours = {"image_column": "image.path", "root": str(tmp_path), "target_column": "label"}
    for path in (made.path, made.path / "data", f"{made.path}/data/*/*.parquet"):
        assert open_at(path, **ours).target_names == list(CLASSES)
    (made.path / "job.json").unlink()
    assert open_at(made.path, **ours).target_names is None


@pytest.mark.parametrize("first", [pa.int32(), pa.int8()])
def test_a_table_that_is_there_keeps_the_types_of_its_kept_columns(folder, first):
    rows = table(pictures())
    narrow = pa.array([1] * len(rows), first)
    pq.write_table(rows.append_column("n", narrow).append_column("s", pa.array([{"x": 1}] * len(rows))), folder / "a.parquet")
    for path in folder.glob("train-*"):
        path.unlink()
    source = open_at(folder, target_column="label", keep_columns=["n", "s.x"])
    source.before = pa.schema([("n", pa.int64()), ("s.x", pa.int64())])
    read = read_all(pickle.loads(pickle.dumps(source)))
    assert read["n"].type == read["s.x"].type == source.kept().field("n").type == pa.int64()
    assert read["n"].to_pylist() == [1] * 60
    refused = open_at(folder, keep_columns=["n"])
    refused.before = pa.schema([("n", pa.uint8())])
    with pytest.raises(SourceError, match="a.parquet: column n is int.* here and uint8 in the table that is there"):
        list(refused.shards())
