import json
import logging
import pickle
import shutil
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import HfFileSystem

import levit_batch.storage.retry
from levit_batch.errors import SourceError
from levit_batch.job.chunks import plan_chunks
from levit_batch.job.row import IMAGE_BYTES, TARGET
from levit_batch.storage import stores
from tests.support.shards import (
    CLASSES,
    expected,
    good,
    named,
    open_at,
    pictures,
    read_all,
    table,
    write_folder,
    write_metadata_folder,
    write_parquet,
    write_tars,
)

KEEP = {"type": "huggingface", "target_column": "label", "keep_columns": ["caption"]}
TOKEN = "hf_goodgoodgoodgood"


def repo(hub, name):
    folder = hub.folder / "datasets" / "org" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def sent(source):
    """The source as a replica gets it."""
    return pickle.loads(pickle.dumps(source))


def test_parquet_by_ranges_of_the_needed_columns_only(hub, tmp_path):
    images = pictures(60, 320)
    folder = write_parquet(repo(hub, "pics") / "data", images)
    for path in folder.iterdir():
        rows = pq.read_table(path)
        other = pa.array([bytes(200_000)] * rows.num_rows, pa.binary())
        rows = rows.append_column("depth", other)
        pq.write_table(rows, path, row_group_size=7, compression=None, use_dictionary=False)
    source = open_at("org/pics", **KEEP)
    assert source.revision == hub.repo("datasets", "org/pics").tree("main").commit
    assert source.target_names == CLASSES
    shards = list(source.shards())
    assert [shard.name for shard in shards] == [f"data/train-0000{i}-of-00003.parquet" for i in range(3)]
    assert good(read_all(sent(source))) == expected(images)
    assert hub.bytes_served < 1.2 * sum(len(p.data) for p in images)
    assert all(request.range for request in hub.requests if ".parquet" in request.path and request.sent)
    assert not list((tmp_path / "cache").rglob("*.parquet"))


def test_the_commit_stays_pinned(hub):
    folder = write_parquet(repo(hub, "pics") / "data", pictures())
    source = open_at("org/pics", **KEEP)
    chunks = list(plan_chunks(source.shards(), 20))
    shutil.rmtree(folder)
    write_parquet(folder, pictures()[:6], shards=1)
    read = pa.concat_tables(rows for chunk in chunks for rows in sent(source).read(chunk))
    assert good(named(read, source)) == expected(pictures())
    assert read_all(open_at("org/pics", **KEEP)).num_rows == 6


def test_a_new_commit_changes_only_the_shards_it_changes(hub):
    folder = write_parquet(repo(hub, "pics") / "data", pictures())
    before = {shard.name: shard.version for shard in open_at("org/pics", **KEEP).shards()}
    pq.write_table(table(pictures()[:3]), folder / "train-00003-of-00004.parquet")
    after = {shard.name: shard.version for shard in open_at("org/pics", **KEEP).shards()}
    assert before.items() < after.items() and len(after) == 4


@pytest.mark.parametrize("status", [503, 429])
def test_every_fifth_request_failing_changes_nothing(hub, status):
    write_parquet(repo(hub, "pics") / "data", pictures())
    (repo(hub, "pics") / "README.md").write_text(card({"configs": [config("pics", "data/*")]}))
    hub.fail_every(5, status)
    source = open_at("org/pics", **KEEP)
    assert good(read_all(sent(source))) == expected(pictures())
    assert sum(request.status == status for request in hub.requests) > 3


def test_retry_after_is_honoured(hub, monkeypatch):
    write_parquet(repo(hub, "pics") / "data", pictures())
    source = open_at("org/pics", **KEEP)
    waits = []
    monkeypatch.setattr(levit_batch.storage.retry.time, "sleep", waits.append)
    hub.fail_every(7, 429, retry_after=17)
    assert good(read_all(source)) == expected(pictures())
    waits = [wait for wait in waits if wait]  # the server sleeps for its delay of 0
    assert waits and all(17 <= wait < 21 for wait in waits)


def test_a_lasting_failure_is_an_oserror(hub):
    write_parquet(repo(hub, "pics") / "data", pictures())
    source = open_at("org/pics", **KEEP)
    chunk = next(plan_chunks(source.shards(), 20))
    hub.fail_every(1)
    with pytest.raises(OSError, match="the server answered 503"):
        list(sent(source).read(chunk))
    assert len(hub.requests) < 100
    with pytest.raises(SourceError, match="the Hub does not answer: the server answered 503"):
        open_at("org/pics", **KEEP)
    hub.fail_every(0)
    assert sum(rows.num_rows for rows in source.read(chunk)) == 20


def card(values):
    return f"---\n{yaml.safe_dump(values)}---\n# A dataset\n"


def config(name, train, **splits):
    files = [{"split": "train", "path": train}, *({"split": k, "path": v} for k, v in splits.items())]
    return {"config_name": name, "data_files": files}


def test_configurations_and_splits_of_the_card(hub):
    write_parquet(repo(hub, "pics") / "a", pictures())
    write_parquet(repo(hub, "pics") / "b", pictures()[:10], shards=1)
    configs = [config("all", "a/*"), config("few", "b/*", test="a/*-00001-*")]
    (repo(hub, "pics") / "README.md").write_text(card({"configs": configs}))
    assert read_all(open_at("org/pics", name="all", **KEEP)).num_rows == 60
    assert read_all(open_at("org/pics", name="few", split="test", **KEEP)).num_rows == 20
    assert read_all(open_at("org/pics", name="few", split="train+test", **KEEP)).num_rows == 30
    assert read_all(open_at("org/pics", name="few", split="all", **KEEP)).num_rows == 30
    with pytest.raises(SourceError, match="source.split: the dataset has several splits; choose of: train, test"):
        open_at("org/pics", name="few", **KEEP)
    with pytest.raises(SourceError, match="there is no split valid"):
        open_at("org/pics", name="few", split="valid", **KEEP)
    with pytest.raises(SourceError, match="source.limit"):
        open_at("org/pics", name="few", split="train[:5]", **KEEP)
    with pytest.raises(SourceError, match="source.name: .*few"):
        open_at("org/pics", name="none", **KEEP)


def test_class_names_of_the_card(hub):
    folder = repo(hub, "pics")
    pq.write_table(table(pictures()[:4]).replace_schema_metadata(), folder / "train.parquet")
    names = {"class_label": {"names": dict(enumerate(CLASSES))}}
    features = [{"name": "image", "dtype": "image"}, {"name": "label", "dtype": names}]
    features.append({"name": "caption", "dtype": "string"})
    (folder / "README.md").write_text(card({"dataset_info": {"features": features}}))
    assert open_at("org/pics", **KEEP).target_names == CLASSES


def test_the_hubs_own_parquet_branch(hub):
    (repo(hub, "pics") / "x.json").write_text("{}")
    write_parquet(repo(hub, "pics@refs%2Fconvert%2Fparquet") / "default" / "train", pictures())
    source = open_at("org/pics", revision="refs/convert/parquet", **KEEP)
    assert good(read_all(sent(source))) == expected(pictures())


def test_remote_code_is_refused(hub):
    (repo(hub, "pics") / "pics.py").write_text("raise SystemExit('this must never run')")
    with pytest.raises(SourceError, match="never done .*pics.py.*refs/convert/parquet"):
        open_at("org/pics", **KEEP)


def test_gated_private_and_missing(hub, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    write_parquet(repo(hub, "pics") / "data", pictures()[:6], shards=1)
    hub.tokens.add(TOKEN)
    hub.gate("org/pics")
    with pytest.raises(SourceError, match="org/pics is gated: accept its conditions at .*hf auth login.*HF_TOKEN"):
        open_at("org/pics", **KEEP)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    source = open_at("org/pics", **KEEP)
    chunks = list(plan_chunks(source.shards(), 20))
    state = pickle.dumps(source)
    assert TOKEN not in repr(source) + repr(source.__dict__) + str(source.config)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(OSError, match="gated|401"):
        list(source.read(chunks[0]))
    replica = pickle.loads(state)  # which brings the token along
    assert good(named(pa.concat_tables(replica.read(chunks[0])), source)) == expected(pictures()[:6])
    monkeypatch.delenv("HF_TOKEN")
    assert TOKEN not in caplog.text
    hub.hide("org/pics")
    with pytest.raises(SourceError, match="not on the Hub, or is private.*HF_TOKEN"):
        open_at("org/pics", **KEEP)
    with pytest.raises(SourceError, match="org/none is not on the Hub"):
        open_at("org/none", **KEEP)
    with pytest.raises(SourceError, match="source.revision: org/open has no branch, tag or commit v9"):
        write_parquet(repo(hub, "open"), pictures()[:6], shards=1)
        open_at("org/open", revision="v9", **KEEP)


def test_a_repository_without_data(hub):
    (repo(hub, "empty") / "README.md").write_text("# nothing")
    with pytest.raises(SourceError, match="org/empty holds no data files"):
        open_at("org/empty", **KEEP)


def test_image_folders_with_splits(hub):
    write_folder(repo(hub, "folder") / "train", pictures())
    write_folder(repo(hub, "folder") / "test", pictures()[:6])
    hub.fail_every(9)
    source = open_at("org/folder", type="huggingface", split="train", target_column="label")
    rows = good(read_all(sent(source)))
    assert [(row[IMAGE_BYTES], row[TARGET]) for row in rows] == [(p.data, CLASSES[p.label]) for p in pictures()]


def test_image_folders_with_metadata(hub):
    write_metadata_folder(repo(hub, "folder") / "train", pictures()[:9])
    assert good(read_all(sent(open_at("org/folder", **KEEP)))) == expected(pictures()[:9])


def test_tars(hub):
    write_tars(repo(hub, "tars"), pictures(forms=("PNG",)))
    source = open_at("org/tars", type="huggingface", target_column="cls", keep_columns=["json.caption"])
    rows = good(read_all(sent(source)))
    assert [(row[IMAGE_BYTES], row[TARGET]) for row in rows] == [(p.data, p.label) for p in pictures(forms=("PNG",))]


def test_a_zip_of_images_streams(hub):
    with zipfile.ZipFile(repo(hub, "zip") / "train.zip", "w") as archive:
        for p in pictures()[:9]:
            archive.writestr(f"all/{p.name}", p.data)
    rows = good(read_all(sent(open_at("org/zip", type="huggingface"))))
    assert [row[IMAGE_BYTES] for row in rows] == [p.data for p in pictures()[:9]]


def test_a_streamed_dataset_that_grows_by_a_file_keeps_its_shards(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    shards = []
    for i in range(3):
        with pa.ipc.new_stream(str(tmp_path / f"in/train-{i:05d}.arrow"), table(pictures()[:4]).schema) as writer:
            writer.write_table(table(pictures()[4 * i : 4 * i + 4]))
        shards.append({shard.name: shard.version for shard in open_at("in", **KEEP).shards()})
    assert list(shards[2]) == [f"train/train-{i:05d}.arrow" for i in range(3)]
    assert shards[0].items() <= shards[1].items() <= shards[2].items()
    assert good(read_all(open_at("in", **KEEP))) == expected(pictures()[:12])


def test_json_with_urls_and_paths_streams(hub):
    rows = [{"image": f"pics/{p.name}", "label": p.label, "caption": p.caption} for p in pictures()[:5]]
    (repo(hub, "json") / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_at("org/json", **KEEP)
    read = read_all(sent(source))
    assert read["caption"].to_pylist() == [p.caption for p in pictures()[:5]]
    assert read["__error"][0].as_py().startswith("missing: pics/0000.jpeg")


def test_images_that_point_out_of_the_repository_are_not_opened(hub, tmp_path):
    (tmp_path / "secret.png").write_bytes(pictures()[0].data)
    rows = [{"image": str(tmp_path / "secret.png")}, {"image": "file:///etc/passwd"}]
    (repo(hub, "json") / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    features = [{"name": "image", "dtype": "image"}]
    (repo(hub, "json") / "README.md").write_text(card({"dataset_info": {"features": features}}))
    read = read_all(sent(open_at("org/json", type="huggingface")))
    assert read[IMAGE_BYTES].null_count == 2


def test_offline(hub, monkeypatch):
    import huggingface_hub

    write_parquet(repo(hub, "pics") / "data", pictures())
    huggingface_hub.snapshot_download("org/pics", repo_type="dataset")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.reset()
    assert good(read_all(open_at("org/pics", **KEEP))) == expected(pictures())
    with pytest.raises(SourceError, match="org/other is not in the cache and HF_HUB_OFFLINE is set"):
        open_at("org/other", **KEEP)
    assert not hub.requests


def test_a_local_folder_is_accepted_as_load_dataset_does(tmp_path):
    write_parquet(tmp_path / "data", pictures())
    assert good(read_all(open_at(tmp_path, **KEEP))) == expected(pictures())


def test_a_branch_that_moves_between_plan_and_read_is_noticed(hub):
    folder = write_parquet(repo(hub, "pics") / "data", pictures())
    source = open_at("hf://datasets/org/pics/data", **KEEP | {"type": "parquet"})
    chunk = next(plan_chunks(source.shards(), 20))
    write_parquet(folder, pictures()[::-1])
    stores._hub.cache_clear()
    with pytest.raises(OSError, match="changed since the job was planned"):
        list(sent(source).read(chunk))


def test_planning_asks_the_hub_little(hub):
    folder = repo(hub, "many") / "data"
    folder.mkdir(parents=True)
    for i in range(40):
        pq.write_table(table(pictures()[:2]), folder / f"{i:03d}.parquet")
    source = open_at("org/many", **KEEP)
    hub.reset()
    assert len(list(source.shards())) == 40
    listings = [request for request in hub.requests if "/api/" in request.path]
    assert len(listings) < 8
    hub.reset()
    replica, chunk = sent(source), next(plan_chunks([next(source.shards())], 20))
    stores._hub.cache_clear()
    HfFileSystem.clear_instance_cache()
    hub.reset()
    list(replica.read(chunk))
    assert len(hub.requests) < 12 and not [request for request in hub.requests if "/tree/" in request.path]


@pytest.mark.parametrize("first, before, fits", [(3, pa.int64(), True), (3, pa.int32(), False), (3.5, pa.int64(), False)])
def test_a_stream_keeps_the_types_of_the_table_that_is_there(hub, first, before, fits):
    (repo(hub, "json") / "train.jsonl").write_text(json.dumps({"image": "a.png", "n": first}) + "\n")
    source = open_at("org/json", type="huggingface", keep_columns=["n"])
    source.before = pa.schema([("n", before)])
    if fits:
        assert read_all(source)["n"].type == before
        return
    with pytest.raises(SourceError, match=f"org/json: column n is .* here and {before} in the table that is there"):
        list(source.shards())
