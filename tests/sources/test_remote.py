"""Every source that takes a URL, on an object store and on a web server."""

import pickle
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import levit_batch.storage.retry
from levit_batch.errors import SourceError
from levit_batch.job.chunks import plan_chunks
from levit_batch.job.row import READ_ERROR
from levit_batch.storage.url import shown
from tests.support.shards import (
    expected,
    good,
    open_at,
    pictures,
    read_all,
    table,
    write_folder,
    write_parquet,
    write_tars,
)

KEEP = {"target_column": "label", "keep_columns": ["caption"]}


class Ranges(SimpleHTTPRequestHandler):
    """Files by range, with an etag; each third range breaks off."""

    ranges, breaks = True, 0
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.translate_path(self.path.partition("?")[0])
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError:
            return self.send_error(404)
        asked = self.headers.get("Range") if self.ranges else None
        first, _, last = (asked or "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        self.send_response(206 if asked else 200)
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.send_header("ETag", f'"{len(data)}"')
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        type(self).breaks += bool(asked)
        if asked and self.breaks % 3 == 0 and self.command == "GET":
            part, self.close_connection = part[: len(part) // 2], True
        if self.command == "GET":
            self.wfile.write(part)
        return None

    do_HEAD = do_GET


@pytest.fixture
def web(tmp_path, monkeypatch):
    monkeypatch.setattr(levit_batch.storage.retry, "FIRST_WAIT", 0.01)
    handler = type("Handler", (Ranges,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path))) as http:
        http.handler = handler
        threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
        http.url = f"http://127.0.0.1:{http.server_port}"
        yield http
        http.shutdown()


def test_parquet_on_s3(s3, tmp_path):
    url = s3.put(write_parquet(tmp_path / "in", pictures()), "parquet dir/ä")
    for path in (url, f"{url}/*.parquet", [f"{url}/train-0000{i}-of-00003.parquet" for i in range(3)]):
        source = open_at(path, **KEEP)
        assert good(read_all(pickle.loads(pickle.dumps(source)))) == expected(pictures())


def test_several_places_on_s3_are_named_from_what_they_share(s3, tmp_path):
    url = s3.put(write_parquet(tmp_path / "in", pictures(), shards=1), "tue/x")
    s3.put(tmp_path / "in", "mon/x")
    base = url.removesuffix("/tue/x")
    names = [f"{day}/x/train-00000-of-00001.parquet" for day in ("mon", "tue")]
    for path in (f"{base}/{{mon,tue}}/x/train-00000-of-00001.parquet", [f"{base}/mon", f"{base}/tue/*/*.parquet"]):
        assert [shard.name for shard in open_at(path).shards()] == names
    beside = str(write_parquet(tmp_path / "local", pictures(), shards=1))
    found = [shard.name for shard in open_at([f"{base}/mon", beside]).shards()]
    assert found == [f"file{beside}/train-00000-of-00001.parquet", f"s3/{base[5:]}/mon/x/train-00000-of-00001.parquet"]


def test_the_same_object_uploaded_again_is_the_same_shard(s3, tmp_path):
    folder = write_parquet(tmp_path / "in", pictures())
    url = s3.put(folder, "again")
    before = list(open_at(url).shards())
    s3.put(folder, "again")
    assert list(open_at(url).shards()) == before
    chunk = next(plan_chunks(before, 5))
    s3.put(write_parquet(tmp_path / "other", pictures()[::-1]), "again")
    with pytest.raises(OSError, match="changed since the job was planned"):
        list(open_at(url).read(chunk))


def test_paths_below_a_root_on_s3(s3, tmp_path):
    root = s3.put(write_folder(tmp_path / "files", pictures()), "root")
    rows = table(pictures()[:3])
    paths = [f"china/{pictures()[0].name}", "china/gone.png", "../tars/train-00000.tar"]
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(rows.set_column(0, "image", pa.array(paths)), folder / "a.parquet")
    read = read_all(open_at(folder, root=root))
    assert read["__bytes"][0].as_py() == pictures()[0].data
    assert [error and error.split(":")[0] for error in read[READ_ERROR].to_pylist()] == [None, "missing", "forbidden"]
    error = read_all(open_at(folder, root=root, max_image_bytes=1000))[READ_ERROR][0].as_py()
    assert error.startswith("unreadable: ") and "source.max_image_bytes allows 1000" in error


def test_nothing_there_on_s3(s3):
    for path in ("s3://pictures/none", "s3://no-such-bucket/x", "s3://pictures/none/*.parquet"):
        with pytest.raises(SourceError, match="nothing found at s3://|cannot be listed"):
            list(open_at(path).shards())
    with pytest.raises(SourceError, match="no images below s3://|no folder"):
        list(open_at("s3://pictures/none", type="imagefolder").shards())


def test_a_web_server_that_breaks_off(web, tmp_path):
    write_parquet(tmp_path, pictures())
    urls = [f"{web.url}/train-0000{i}-of-00003.parquet?signature=secret" for i in range(3)]
    source = open_at(urls, **KEEP)
    assert good(read_all(pickle.loads(pickle.dumps(source)))) == expected(pictures())
    assert [shard.name for shard in source.shards()] == [f"train-0000{i}-of-00003.parquet" for i in range(3)]
    assert web.handler.breaks > 10


def test_tars_on_a_web_server(web, tmp_path):
    write_tars(tmp_path, pictures())
    source = open_at(f"{web.url}/train-{{00000..00002}}.tar", type="webdataset", target_column="cls")
    assert good(read_all(source)) == expected(pictures(), caption=False)


def test_a_web_server_without_ranges_is_refused(web, tmp_path):
    write_parquet(tmp_path, pictures())
    web.handler.ranges = False
    with pytest.raises(SourceError, match="does not answer range requests"):
        list(open_at(f"{web.url}/train-00000-of-00003.parquet?signature=secret").shards())
    with pytest.raises(SourceError, match="none.parquet") as caught:
        list(open_at(f"{web.url}/none.parquet?signature=secret").shards())
    assert "secret" not in str(caught.value)


def test_addresses_are_shown_without_secrets():
    assert shown("https://me:pass@host/a%20b?X-Amz-Signature=1#x") == "https://host/a%20b"
    assert shown("s3://key:secret@bucket/a?b#c?region=x") == "s3://bucket/a?b#c"
    assert shown("a/b?c") == "a/b?c"
