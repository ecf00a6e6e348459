import errno
import os

import pytest

from levit_batch.errors import JobError, RefusedError
from levit_batch.job.chunks import Chunk
from levit_batch.job.config import OutputConfig
from levit_batch.table.attempts import GIVE_UP_AFTER, PREDICT, Attempts
from levit_batch.table.output import Output
from levit_batch.table.refusal import writing

CHUNK, OTHER = Chunk("s/x.parquet", "", "0" * 8, 0, 10), Chunk("s/x.parquet", "", "0" * 8, 10, 20)


def test_attempts_are_counted_across_processes_and_runs(tmp_path):
    output = Output(OutputConfig(path=str(tmp_path)))
    first = Attempts(output, "run1")
    assert [first.begin(CHUNK), first.begin(CHUNK), first.begin(OTHER)] == [(1, 1), (2, 2), (1, 1)]
    assert Attempts(output, "run2").begin(CHUNK) == (3, 1), "the third of all, the first of that run"
    first.end(CHUNK)
    assert first.begin(CHUNK) == (1, 1)
    first.end(CHUNK)
    first.end(OTHER)
    assert list(tmp_path.rglob("*")) == [], "no marker and no folder is left"


def test_a_chunk_is_given_up_in_a_run_and_tried_again_in_the_next(tmp_path):
    output = Output(OutputConfig(path=str(tmp_path)))
    attempts = Attempts(output, "run1")
    for _ in range(GIVE_UP_AFTER):
        attempts.begin(CHUNK)
    with pytest.raises(JobError, match=r"s/x\.parquet rows 0-9: its replica died 5 times"):
        attempts.begin(CHUNK)
    assert Attempts(output, "run2").begin(CHUNK) == (1, 1)


def test_kills_of_whole_runs_never_give_a_chunk_up(tmp_path):
    output = Output(OutputConfig(path=str(tmp_path)))
    assert [Attempts(output, f"run{i}").begin(CHUNK) for i in range(20)] == [(i, 1) for i in range(1, 21)]


def test_an_attempt_that_its_process_outlived_does_not_count(tmp_path):
    output = Output(OutputConfig(path=str(tmp_path)))
    attempts = Attempts(output, "run1")
    for _ in range(2 * GIVE_UP_AFTER):
        assert attempts.begin(CHUNK) == (1, 1)
        attempts.take_back(CHUNK)
    assert not attempts.died_with(CHUNK)
    attempts.begin(CHUNK)
    assert attempts.begin(CHUNK) == (2, 2)
    attempts.take_back(CHUNK)
    assert attempts.died_with(CHUNK) and attempts.begin(CHUNK) == (2, 2), "the death before still does"
    attempts.take_back(OTHER)
    assert not attempts.died_with(OTHER)


def test_each_stage_counts_for_itself_and_the_end_is_of_both(tmp_path):
    attempts = Attempts(Output(OutputConfig(path=str(tmp_path))), "run1")
    assert [attempts.begin(CHUNK), attempts.begin(CHUNK, PREDICT), attempts.begin(CHUNK, PREDICT)] == [(1, 1), (1, 1), (2, 2)]
    attempts.take_back(CHUNK)
    attempts.take_back(CHUNK, PREDICT)
    assert attempts.died_with(CHUNK) and [attempts.begin(CHUNK), attempts.begin(CHUNK, PREDICT)] == [(1, 1), (2, 2)]
    attempts.end(CHUNK)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM])
def test_an_output_that_will_not_take_it_is_refused_and_one_that_may_is_not(tmp_path, error):
    output = Output(OutputConfig(path=str(tmp_path)))
    said = rf"^output.path: {tmp_path} cannot be written: .*the same command goes on$"
    with pytest.raises(RefusedError, match=said), writing(output):
        raise OSError(error, os.strerror(error))
    for text in ("AWS Error ACCESS_DENIED during PutObject", "AWS Error NO_SUCH_BUCKET during PutObject"):
        with pytest.raises(RefusedError), writing(output):
            raise OSError(text)
    for passing in (OSError("AWS Error SLOW_DOWN during PutObject (HTTP status 503)"), TimeoutError("timed out")):
        with pytest.raises(OSError) as raised, writing(output):
            raise passing
        assert raised.value is passing


def test_a_damaged_marker_counts_as_none(tmp_path):
    output = Output(OutputConfig(path=str(tmp_path)))
    attempts = Attempts(output, "run1")
    attempts.begin(CHUNK)
    next(path for path in tmp_path.rglob("*") if path.is_file()).write_bytes(b"{")
    assert attempts.begin(CHUNK) == (1, 1)
