import pyarrow as pa
import pytest

from levit_batch.errors import OutputError
from levit_batch.job.config import JobConfig
from levit_batch.job.row import RowSpec
from levit_batch.levit.checkpoint import Checkpoint
from levit_batch.table.fingerprint import make_job, write_job
from levit_batch.table.kept_types import kept_before, kept_in
from levit_batch.table.output import Output
from tests.support.shards import open_at, pictures, write_parquet

KINDS = [pa.int32(), pa.dictionary(pa.int16(), pa.string()), pa.map_(pa.string(), pa.list_(pa.int8())), pa.timestamp("us", "UTC")]
KEPT = pa.schema([(f"c{i}", kind) for i, kind in enumerate(KINDS)] + [("label", pa.int64())])


class Loaded(Checkpoint):
    """What `write_job` asks of a checkpoint, without one."""

    def __init__(self):
        for name in ("digest", "backbone", "form", "revision", "class_names", "processor"):
            object.__setattr__(self, name, None)


@pytest.fixture
def config(tmp_path):
    source = {"path": str(write_parquet(tmp_path / "in", pictures()[:3])), "keep_columns": KEPT.names}
    return JobConfig.model_validate({"source": source, "model": {"checkpoint": "c"}, "output": {"path": str(tmp_path / "out")}})


@pytest.fixture
def output(config):
    """What a job left that was killed before its first chunk."""
    spec = RowSpec(("a", "b"), 4, 2, "float16", False, False, KEPT, None)
    said = KEPT.with_metadata({"huggingface": '{"info": {"features": {"label": {"names": ["x"], "_type": "ClassLabel"}}}}'})
    write_job(make_job(config, "d", {}, "float32", spec), output := Output(config.output), None, Loaded(), "float32",
              open_at(config.source.path), said)  # fmt: skip
    return output


def test_every_type_comes_back_as_it_was_with_what_is_said_of_it(config, output):
    before = kept_before(config, output)
    assert before.equals(KEPT)
    assert b'"label": {"names": ["x"]' in before.metadata[b"huggingface"]  # which the table calls source_label


def test_a_fresh_output_says_nothing(config):
    assert kept_before(config, Output(config.output)) is None


@pytest.mark.parametrize("change", [{"keep_columns": ["c0"]}, {"path": "elsewhere"}, {"type": "arrow"}, {"root": "x"}])
def test_another_source_is_told_apart_by_the_whole_job(config, output, change):
    other = config.model_copy(update={"source": config.source.model_copy(update=change)})
    assert kept_before(other, output) is None


def test_types_that_cannot_be_read_are_named(config, output):
    job = output.read_json("job.json")
    assert kept_in({}, "x") is None
    with pytest.raises(OutputError, match="x: job.json: kept_types cannot be read"):
        kept_in(job | {"kept_types": "AAAA"}, "x")
