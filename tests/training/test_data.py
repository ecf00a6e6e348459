"""From chunks to batches: every image once, in bounded memory, bad rows counted, and the same again from the middle."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import SourceError
from levit_batch.job.chunks import Chunk, plan_chunks
from levit_batch.training.config import TrainSourceConfig
from levit_batch.training.data import Loader, Sample, SampleReader, Split, open_training_source, shuffled, worker_chunks
from levit_batch.training.targets import ClassColumn, student_names
from tests.golden.make_demo import BROKEN, NAMES
from tests.support.images import CHINA, encode
from tests.support.trainings import CONFIGS


def reader(split: Split = Split(0), cache: int = 0, **source) -> tuple[SampleReader, list[Chunk]]:
    values = {"path": str(CONFIGS / "demo" / "train"), "target_column": "label", "teacher_column": "teacher"} | source
    config = TrainSourceConfig(**values)
    opened = open_training_source(config)
    chunks = list(plan_chunks(opened.shards(), 100))
    names = student_names(opened, None, chunks)
    teacher = config.teacher_column and ClassColumn(opened, config.teacher_column, "source.teacher_column", names)
    target = ClassColumn(opened, config.target_column, "source.target_column", names)
    return SampleReader(opened, target, teacher, split, cache), chunks


def samples(read: SampleReader, chunks: list[Chunk]) -> list[Sample]:
    return [sample for chunk in chunks for sample in read(chunk)]


def test_samples_carry_the_row_as_it_is_in_the_shards():
    read, chunks = reader()
    rows = [row for file in sorted((CONFIGS / "demo" / "train").glob("*")) for row in pq.read_table(file).to_pylist()]
    found = samples(read, chunks)
    assert len(found) == len(rows) == len({sample.key for sample in found})
    for number, (sample, row) in enumerate(zip(found, rows, strict=True)):
        if BROKEN["train"].get(number) == "null":
            assert sample.data is None and sample.error.startswith("null:")
        else:
            assert (sample.data, sample.target, sample.teacher) == (row["image"]["bytes"], row["label"], row["teacher"])


def test_split_divides_the_rows_without_overlap_and_for_ever_the_same():
    parts = [{s.key for s in samples(*reader(split))} for split in (Split(3, 0.0, 0.2), Split(3, 0.2, 1.0), Split(3))]
    assert not parts[0] & parts[1] and parts[0] | parts[1] == parts[2]
    assert 0.15 < len(parts[0]) / len(parts[2]) < 0.25
    assert Split(3).key("a.parquet", 7) == 0x3A4443A204D303E  # another would move rows between training and validation
    assert Split(3).key("a.parquet", 7) != Split(4).key("a.parquet", 7)


def test_cache_reads_each_chunk_once_as_far_as_it_goes():
    read, chunks = reader(cache=30_000)
    first = samples(read, chunks)
    reads = []
    original = read.source.read
    read.source.read = lambda chunk: (reads.append(chunk), original(chunk))[1]
    assert samples(read, chunks) == first
    assert 0 < len(reads) < len(chunks) and read.cache_bytes >= 0
    assert sum(len(s.data or b"") for kept in read._cache.values() for s in kept) <= 30_000


def test_shuffle_gives_each_sample_once_in_an_order_of_its_seed():
    read, chunks = reader()
    orders = [[s.key for s in shuffled(read, chunks, 64, seed)] for seed in ((0, 1), (0, 1), (0, 2))]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == sorted(s.key for s in samples(read, chunks))


def test_shuffle_holds_no_more_than_its_buffer():
    taken = []

    def read(chunk: int):
        for i in range(50):
            taken.append(i)
            yield Sample(None, None, 50 * chunk + i, -1, 0)

    given = 0
    for given, _ in enumerate(shuffled(read, range(20), 32, (0,)), 1):
        assert len(taken) - given <= 32
    assert given == 1000


def test_workers_share_the_chunks_and_each_epoch_has_its_order():
    chunks = [Chunk("s", "s", "v", i, i + 1) for i in range(11)]
    parts = [worker_chunks(chunks, 0, 3, rank, 3) for rank in range(3)]
    assert sorted(sum(parts, []), key=lambda c: c.first) == chunks
    assert worker_chunks(chunks, 0, 0, 0, 1) != worker_chunks(chunks, 0, 1, 0, 1)


def numbered(count: int, bad: dict[int, str]) -> list[Sample]:
    images = [np.full((4, 4, 3), i, np.uint8) for i in range(count)]
    from PIL import Image

    data = [encode(Image.fromarray(image), "PNG") for image in images]
    return [Sample(bad.get(i, data[i]) if i in bad else data[i], None, i, -1, i) for i in range(count)]


def loader() -> Loader:
    return Loader(lambda pixels, sample: pixels, 1_000_000, threads=3)


def test_batches_hold_the_good_rows_in_order_and_bad_ones_are_counted():
    load = loader()
    batches = list(load.batches(iter(numbered(23, {2: b"", 9: b"junk", 10: b"junk"})), 4, drop_last=False))
    good = [i for i in range(23) if i not in (2, 9, 10)]
    assert [t for batch in batches for t in batch.targets.tolist()] == good
    assert [int(p[0, 0, 0]) for batch in batches for p in batch.pixels] == good
    assert [len(batch.targets) for batch in batches] == [4, 4, 4, 4, 4]
    assert load.skipped == {"empty": 1, "decode": 2}


def test_last_incomplete_batch_is_left_out_in_training_only():
    assert len(list(loader().batches(iter(numbered(10, {})), 4))) == 2
    assert [len(b.targets) for b in loader().batches(iter(numbered(10, {})), 4, drop_last=False)] == [4, 4, 2]


def test_stream_goes_on_from_any_batch():
    rows = numbered(40, {3: b"", 11: b"junk", 12: b"", 30: b"x"})
    whole = list(loader().batches(iter(rows), 5))
    for i, batch in enumerate(whole):
        rest = list(loader().batches(iter(rows), 5, start=batch.consumed))
        assert [b.targets.tolist() for b in rest] == [b.targets.tolist() for b in whole[i + 1 :]]


def write(folder, rows: dict[str, pa.Array], metadata: dict | None = None) -> str:
    image = encode(CHINA.resize((8, 8)), "PNG")
    count = len(next(iter(rows.values())))
    table = pa.table({"image": pa.array([image] * count, pa.binary()), **rows})
    pq.write_table(table.replace_schema_metadata(metadata), folder / "x.parquet")
    return str(folder)


def test_targets_may_be_names_and_null_ones_are_skipped(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    path = write(tmp_path, {"kind": pa.array(["dog", "cat", None, "Dog"])})
    read, chunks = reader(path=path, target_column="kind", teacher_column=None, class_names=str(names))
    found = samples(read, chunks)
    assert [s.target for s in found] == [1, 0, -1, 1]
    assert [s.error for s in found][2].startswith("target:") and found[0].error is None


def test_target_that_is_no_class_is_an_error_that_names_the_value(tmp_path):
    features = {"info": {"features": {"label": {"names": list(NAMES), "_type": "ClassLabel"}}}}
    path = write(tmp_path, {"label": pa.array([3, 11])}, {"huggingface": json.dumps(features)})
    read, chunks = reader(path=path, teacher_column=None)
    with pytest.raises(SourceError, match=r"x\.parquet from row 0: label is 11, which is none of the 10 classes"):
        samples(read, chunks)


def test_target_without_class_names_asks_for_them(tmp_path):
    path = write(tmp_path, {"label": pa.array([3, 11])})
    with pytest.raises(SourceError, match="without class names.*source.class_names"):
        reader(path=path, teacher_column=None)


def test_several_targets_a_row_are_refused(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    path = write(tmp_path, {"label": pa.array([[0], [0, 1]])})
    with pytest.raises(SourceError, match="one class a row"):
        reader(path=path, teacher_column=None, class_names=str(names))
