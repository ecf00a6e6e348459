import random

import pytest

from levit_batch.job.chunks import (
    CHUNK_SCHEMA,
    Chunk,
    Shard,
    chunk_table,
    chunks_of_table,
    cut,
    plan_chunks,
)
from levit_batch.storage.identity import version_of


@pytest.mark.parametrize(
    ("groups", "chunk_rows", "expected"),
    [
        ((100,) * 5, 250, [(0, 200), (200, 400), (400, 500)]),
        ((1000,), 400, [(0, 333), (333, 666), (666, 1000)]),
        ((2049,), 2048, [(0, 1024), (1024, 2049)]),
        ((50, 900, 50), 400, [(0, 50), (50, 350), (350, 650), (650, 950), (950, 1000)]),
        ((5,), 2048, [(0, 5)]),
        ((0, 5, 0), 2048, [(0, 5)]),
        ((0,), 10, []),
    ],
)
def test_cut(groups, chunk_rows, expected):
    assert list(cut(sum(groups), groups, chunk_rows)) == expected


def test_cut_covers_every_row_once_within_the_limit_and_at_row_groups():
    rng = random.Random(0)
    for _ in range(500):
        groups = [rng.choice([0, 1, 7, 100, 333, 5000]) for _ in range(rng.randrange(1, 12))]
        size = rng.choice([1, 5, 100, 128, 1000])
        ranges = list(cut(sum(groups), groups, size))
        assert [row for first, stop in ranges for row in (first, stop)][1:-1:2] == [first for first, _ in ranges[1:]]
        assert (ranges[0][0], ranges[-1][1]) == (0, sum(groups)) if sum(groups) else not ranges
        assert all(0 < stop - first <= size for first, stop in ranges)
        edges = {sum(groups[:i]) for i in range(len(groups) + 1)}
        for i, group in enumerate(groups):
            start = sum(groups[:i])
            inside = [first for first, _ in ranges if start < first < start + group]
            assert not inside or group > size, "a row group that fits in a chunk is never divided"
        assert edges


def test_a_shard_without_groups_is_cut_evenly():
    assert list(cut(10, (), 4)) == [(0, 3), (3, 6), (6, 10)]


def test_limit_takes_exactly_the_first_rows():
    shards = [Shard("a", "a", "1", 100, (100,)), Shard("b", "b", "2", 100, (50, 50))]
    assert [(c.shard, c.first, c.stop) for c in plan_chunks(shards, 60, limit=120)] == [
        ("a", 0, 50),
        ("a", 50, 100),
        ("b", 0, 20),
    ]
    assert sum(c.rows for c in plan_chunks(shards, 60, limit=100)) == 100
    assert sum(c.rows for c in plan_chunks(shards, 60, limit=1000)) == 200


def test_a_shard_of_unknown_length_is_one_chunk():
    (chunk,) = plan_chunks([Shard("a.tar", "a.tar", "1", None)], 60)
    assert (chunk.first, chunk.stop, chunk.rows, str(chunk)) == (0, None, None, "a.tar")


def test_descriptors_survive_a_table():
    chunks = [Chunk("a/b.parquet", "s3://x/a/b.parquet", "0123abcd", 5, 9, True), Chunk("c", "c", "00000000", 0, None)]
    table = chunk_table(chunks)
    assert table.schema == CHUNK_SCHEMA and list(chunks_of_table(table)) == chunks
    assert chunk_table([]).num_rows == 0


def test_versions_differ_with_any_fact():
    assert version_of(10, "a") == version_of(10, "a") and len(version_of(10, "a")) == 8
    assert len({version_of(10, "a"), version_of(11, "a"), version_of(10, "b"), version_of(1, "0a")}) == 4
