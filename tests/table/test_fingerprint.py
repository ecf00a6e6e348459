import os
from dataclasses import replace

import pyarrow as pa
import pytest

from levit_batch.errors import ConfigError, OutputError
from levit_batch.job.chunks import Chunk
from levit_batch.job.config import JobConfig, OutputConfig
from levit_batch.job.load import load_config
from levit_batch.job.row import SCHEMA_VERSION, RowSpec
from levit_batch.sources.columns.targets import TargetMap
from levit_batch.table.fingerprint import check_same_job, check_top_k, make_job, versions
from levit_batch.table.output import Output
from pipelines.label.prepare import prepare

SPEC = RowSpec(("a", "b"), 4, 2, "float16", False, False, pa.schema([]), None)
PROCESSOR = {"size": {"shortest_edge": 224}, "resample": 3}


def config(**changes):
    values = {"source": {"path": "x"}, "model": {"checkpoint": "c"}, "output": {"path": "o"}}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        values.setdefault(section, {})[name] = value
    return JobConfig.model_validate(values)


def job(digest="d", processor=PROCESSOR, dtype="float32", spec=SPEC, targets=None, backend=None, **changes):
    return make_job(config(**changes), digest, processor, dtype, spec, targets and targets.meaning, backend)


def target(names, kind=None, model=("a", "b")):
    return TargetMap.make(kind or pa.int64(), names, list(model))


def record(job, **more):
    return job.stored | {"schema_version": SCHEMA_VERSION} | more


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
        {"source__path": "y/*.parquet"},
        {"source__path": ["x", "y"]},
        {"source__type": "huggingface", "source__path": "Me/set"},
        {"source__root": "y"},
        {"backend": "torch"},
        {"targets": target(["b", "a"])},
        {"targets": target(["a", "b"], pa.list_(pa.int64()))},
        {"source__keep_columns": ["l", "k"]},
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
        {"source__max_image_pixels": 1000},
        {"source__decode_timeout": 1},
        {"source__revision": "other"},
        {"compute__chunk_rows": 7},
        {"drift__history": 3},
        {"notify__command": ["mail"]},
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
    output.write_json("job.json", record(job()))
    assert check_same_job(job(), output)["fingerprint"] == job().fingerprint
    with pytest.raises(
        OutputError, match=r"predict\.top_k: 5 there, 1 now; .*weights digest: \"d\" there, \"e\" now"
    ) as caught:
        check_same_job(job(digest="e", predict__top_k=1), output)
    said = str(caught.value)
    assert "chunk_rows" not in said and said.index("use another output.path") < said.index("--overwrite")
    with pytest.raises(OutputError, match=r"top_k: 5 .*; changes no finished row: compute.chunk_rows, source.limit\);"):
        check_same_job(job(predict__top_k=1, compute__chunk_rows=9, source__limit=1, model__checkpoint="e"), output)
    assert check_same_job(job(compute__chunk_rows=9, source__limit=1, model__checkpoint="e"), output)


@pytest.mark.parametrize("staged", [False, True])
def test_chunks_without_a_job_are_refused(tmp_path, staged):
    output = Output(OutputConfig(path=str(tmp_path)))
    output.chunk_place(Chunk("s", "", "0" * 8, 0, 1, staged)).write_bytes(b"x")
    with pytest.raises(OutputError, match="no job.json"):
        check_same_job(job(), output)


def test_more_answers_than_classes():
    with pytest.raises(ConfigError, match=r"predict\.top_k: 5 is more than the checkpoint's 2 classes"):
        check_top_k(config(), 2)
    check_top_k(config(predict__top_k=2), 2)


@pytest.mark.parametrize(
    ("version", "said"), [(1, "by the first version"), (None, "by another version"), (99, "by another version")]
)
def test_an_output_of_another_version_is_refused_in_a_line_of_its_own(tmp_path, version, said):
    output = Output(OutputConfig(path=str(tmp_path)))
    output.write_json("job.json", record(job(), schema_version=version))
    with pytest.raises(OutputError, match=f"{said} .* label into another output.path, or .* --overwrite"):
        check_same_job(job(), output)


@pytest.mark.parametrize(
    "path",
    [
        "./src/*.parquet", "src/../src//*.parquet", "{cwd}/src/*.parquet", "file://{cwd}/src/*.parquet", ["src/*.parquet"],
        ["src/*.parquet", "./src/*.parquet"],
    ],
)  # fmt: skip
def test_a_spelling_of_the_source_is_no_other_job(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    output, before = Output(OutputConfig(path=str(tmp_path / "out"))), job(source__path="src/*.parquet")
    output.write_json("job.json", record(before))
    path = [one.format(cwd=tmp_path) for one in path] if isinstance(path, list) else path.format(cwd=tmp_path)
    after = job(source__path=path)
    assert after.fingerprint == before.fingerprint and after.places == before.places
    assert check_same_job(after, output)


def test_a_local_checkpoint_is_stored_so_that_it_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("org/levit", "s3.bin")
    stored = [job(model__checkpoint=name).stored["config"]["model"]["checkpoint"] for name in names]
    assert stored == list(names)
    (tmp_path / "org" / "levit").mkdir(parents=True)
    local = job(model__checkpoint="org/levit")
    assert local.stored["config"]["model"]["checkpoint"] == str(tmp_path / "org/levit")
    assert local.fingerprint == job(model__checkpoint="elsewhere").fingerprint


def test_a_relative_source_of_another_folder_is_another_job(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    output = Output(OutputConfig(path=str(tmp_path / "out")))
    output.write_json("job.json", record(job(source__path="src")))
    assert output.read_json("job.json")["config"]["source"]["path"] == str(tmp_path / "a/src")
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(OutputError, match=r"source\.path: \".*a/src\" there, \".*b/src\" now"):
        check_same_job(job(source__path="src"), output)


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        (["p/mon/*.parquet", "p/tue/*.parquet"], ["p/tue/*.parquet", "p/mon/*.parquet"], True),
        (["p/mon", "p/tue"], ["p/mon", "p/tue", "p/wed"], True),
        (["p/mon", "p/tue", "p/wed"], ["p/mon", "p/tue"], True),
        ("p/x-{000..003}.parquet", "p/x-{000..009}.parquet", True),
        ("p", "p/*.parquet", True),
        ("p/", "./p", True),
        ("https://h/p/x.parquet?X-Amz-Signature=1", "https://h/p/x.parquet?X-Amz-Signature=2", True),
        ("https://me:old@h/p/x.parquet", "https://me:new@h/p/x.parquet", True),
        ("https://h/p/x.parquet?part=1", "https://h/p/x.parquet?part=2", False),
        (["p/mon", "p/tue"], ["p/wed", "p/thu"], False),
        (["p/mon", "p/tue"], ["p/mon", "q"], False),
        ("p/a*.parquet", "p/b*.parquet", False),
        ("p/hf_imagenet", "p/hf_catsdogs2", False),
    ],
)
def test_a_list_may_grow_and_shrink_in_its_folder(tmp_path, before, now, same):
    output = Output(OutputConfig(path=str(tmp_path)))
    one, other = job(source__path=before), job(source__path=now)
    output.write_json("job.json", record(one))
    if same:
        assert check_same_job(other, output) and one.fingerprint == other.fingerprint
        return
    with pytest.raises(OutputError, match=r"source\.path: .* there, .* now"):
        check_same_job(other, output)


def test_a_repository_of_the_hub_is_no_path():
    one = job(source__type="huggingface", source__path="Me/Set")
    assert one.values["source.path"] == one.config["source"]["path"] == "Me/Set"


def test_class_names_that_say_the_same_are_the_same_job():
    assert job(targets=target(["A", "b"])).fingerprint == job(targets=target(None)).fingerprint


def test_no_secret_is_stored_and_nothing_else_is_lost():
    made = job(
        source__path=["s3://k:se/cret@b/x", "data/hf_imagenet", "s3://b/x?region=eu"],
        source__root="https://h/x?sig=secret",
        notify__webhook="https://hooks/se/cret",
        notify__command=["curl", "-H", "X-Key: secret"],
    )
    assert "secret" not in str(made.stored) and "se/cret" not in str(made.stored)
    path = made.config["source"]["path"]
    assert path == ["s3://***@b/x", os.path.abspath("data/hf_imagenet"), "s3://b/x?region=eu"]
    assert made.config["notify"]["command"] == ["***"] and made.config["notify"]["webhook"] == "***"


@pytest.mark.parametrize(("dtype", "same"), [("float32", True), ("bfloat16", False)])
def test_the_backend_counts_where_its_numbers_are_its_own(dtype, same):
    pytest.importorskip("openvino")
    settings = [f"model.dtype={dtype}", "compute.gpus_per_replica=0"]
    made = [
        prepare(load_config("configs/demo.yaml", [*settings, f"model.backend={backend}"]), gpu=False).job.fingerprint
        for backend in ("torch", "openvino")
    ]
    assert (made[0] == made[1]) == same


def test_versions_name_the_libraries():
    assert {"python", "torch", "ray", "pyarrow"} <= set(versions())
