from dataclasses import replace

import pyarrow as pa
import pytest

from levit_batch.config import JobConfig, OutputConfig
from levit_batch.errors import ConfigError, OutputError
from levit_batch.job import check_same_job, check_top_k, make_job, versions
from levit_batch.output import Output
from levit_batch.plan import Chunk
from levit_batch.schema import RowSpec

SPEC = RowSpec(("a", "b"), 4, 2, "float16", False, False, pa.schema([]), None)
PROCESSOR = {"size": {"shortest_edge": 224}, "resample": 3}


def config(**changes):
    values = {"source": {"path": "x"}, "model": {"checkpoint": "c"}, "output": {"path": "o"}}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        values.setdefault(section, {})[name] = value
    return JobConfig.model_validate(values)


def job(digest="d", processor=PROCESSOR, dtype="float32", spec=SPEC, **changes):
    return make_job(config(**changes), digest, processor, dtype, spec)


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "e"},
        {"processor": PROCESSOR | {"resample": 2}},
        {"dtype": "float16"},
        {"spec": replace(SPEC, class_names=("a", "c"))},
        {"predict__top_k": 1},
        {"predict__embeddings": "float32"},
        {"predict__logits": True},
        {"predict__per_head": True},
        {"model__heads": "class"},
        {"preprocess__mode": "fast"},
        {"compute__chunk_rows": 7},
        {"source__path": "y"},
        {"source__image_column": "img"},
        {"source__keep_columns": ["k"]},
        {"source__target_column": "t"},
        {"output__format": "arrow"},
    ],
)
def test_everything_that_changes_results_changes_the_fingerprint(change):
    assert job(**change).fingerprint != job().fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"source__limit": 5},
        {"compute__replicas": 3},
        {"output__max_error_rate": 0.5},
        {"model__checkpoint": "same/weights"},
    ],
)
def test_nothing_else_does(change):
    assert job(**change).fingerprint == job().fingerprint


def test_another_job_is_refused_with_the_differences(tmp_path):
    output = Output(OutputConfig(path=str(tmp_path)))
    assert check_same_job(job(), output) is None
    output.write_json("job.json", {"fingerprint": job().fingerprint, "values": job().values})
    assert check_same_job(job(), output)["fingerprint"] == job().fingerprint
    with pytest.raises(
        OutputError, match=r"predict\.top_k: 5 there, 1 now; .*weights digest: \"d\" there, \"e\" now"
    ) as caught:
        check_same_job(job(digest="e", predict__top_k=1), output)
    assert "--overwrite" in str(caught.value) and "chunk_rows" not in str(caught.value)


def test_chunks_without_a_job_are_refused(tmp_path):
    output = Output(OutputConfig(path=str(tmp_path)))
    output.chunk_place(Chunk("s", "", "0" * 8, 0, 1)).write_bytes(b"x")
    with pytest.raises(OutputError, match="no job.json"):
        check_same_job(job(), output)


def test_more_answers_than_classes():
    with pytest.raises(ConfigError, match=r"predict\.top_k: 5 is more than the checkpoint's 2 classes"):
        check_top_k(config(), 2)
    check_top_k(config(predict__top_k=2), 2)


def test_secrets_do_not_reach_the_values():
    assert "secret" not in str(job(source__path="s3://k:secret@b/x").values)


def test_versions_name_the_libraries():
    assert {"python", "torch", "ray", "pyarrow"} <= set(versions())
