import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from levit_batch.errors import LastingError
from levit_batch.storage.find import find_files
from levit_batch.storage.identity import open_file


@pytest.fixture
def hub(hub):
    folder = hub.folder / "datasets" / "org" / "pics" / "data"
    folder.mkdir(parents=True)
    (folder / "a.bin").write_bytes(bytes(range(256)) * 4)
    return hub


def test_ranges_are_served_and_counted(hub):
    file = huggingface_hub.HfFileSystem().open("datasets/org/pics/data/a.bin", block_size=64, cache_type="none")
    file.seek(300)
    assert file.read(10) == bytes(range(44, 54))
    assert hub.bytes_served == 10


def test_an_old_commit_stays_readable(hub):
    api = huggingface_hub.HfApi()
    old = api.dataset_info("org/pics").sha
    (hub.folder / "datasets/org/pics/data/a.bin").write_bytes(b"new")
    assert api.dataset_info("org/pics").sha != old
    assert huggingface_hub.HfFileSystem().cat(f"datasets/org/pics@{old}/data/a.bin")[:3] == b"\x00\x01\x02"
    with pytest.raises(RevisionNotFoundError):
        api.dataset_info("org/pics", revision="none")


def test_gated_and_private(hub):
    hub.gate("org/pics")
    with pytest.raises(GatedRepoError):
        huggingface_hub.hf_hub_download("org/pics", "data/a.bin", repo_type="dataset")
    hub.tokens.add("hf_good")
    assert huggingface_hub.hf_hub_download("org/pics", "data/a.bin", repo_type="dataset", token="hf_good")
    hub.hide("org/pics")
    with pytest.raises(RepositoryNotFoundError):
        huggingface_hub.HfApi().dataset_info("org/pics")


def test_every_third_request_fails(hub):
    hub.fail_every(3, status=429)
    fs = huggingface_hub.HfFileSystem()
    file = fs.open("datasets/org/pics/data/a.bin", block_size=64, cache_type="none")
    assert [file.read(5)[0] for _ in range(4)] == [0, 5, 10, 15]
    assert [r.status for r in hub.requests].count(429) >= 1


def test_upload(hub, tmp_path):
    hub.tokens.add("hf_good")
    api = huggingface_hub.HfApi(token="hf_good")
    api.create_repo("tester/new", repo_type="dataset", private=True)
    (tmp_path / "up" / "x").mkdir(parents=True)
    (tmp_path / "up" / "x" / "b.txt").write_bytes(b"hello")
    api.upload_folder(repo_id="tester/new", repo_type="dataset", folder_path=tmp_path / "up")
    assert (hub.folder / "datasets/tester/new/x/b.txt").read_bytes() == b"hello"
    assert "tester/new" in hub.private


def test_files_of_a_bucket_are_known_by_their_content(hub):
    """They have no blob id: a file of the same size, written anew, would pass for the old one."""
    file = hub.folder / "buckets/org/scans/2026/a.parquet"
    file.parent.mkdir(parents=True)
    versions = []
    for content in (b"one", b"two"):
        file.write_bytes(content)
        (found,) = find_files("hf://buckets/org/scans/2026/*.parquet", (".parquet",))
        assert (found.name, found.size) == ("a.parquet", 3)
        stream, opened = open_file(found.url, found.version)
        assert stream.read() == content and opened.stamp == found.stamp
        versions.append(found.version)
    assert len(set(versions)) == 2
    with pytest.raises(LastingError, match="changed since the job was planned"):
        open_file(found.url, versions[0])
