"""The image column of every type, and what its paths and URLs may name."""

import os
import socket
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pytest

import levit_batch.storage.retry
from levit_batch.errors import SourceError
from levit_batch.job.config import SourceConfig
from levit_batch.job.row import IMAGE_BYTES, READ_ERROR
from levit_batch.sources.columns import web
from levit_batch.sources.columns.images import check_image_type, check_paths
from levit_batch.sources.columns.web import fetch_url
from levit_batch.sources.tables import standard_tables
from tests.support.shards import pictures

IMAGE = pictures()[0].data


def looked_up(values, kind, **options):
    return looked_up_in(pa.array(values, kind), **options)


def looked_up_in(column, **options):
    rows = pa.table({"image": column})
    found = pa.concat_tables(standard_tables(rows, SourceConfig(path="x", **options), rows.schema))
    assert found[IMAGE_BYTES].type == pa.large_binary()
    return found[IMAGE_BYTES].to_pylist(), found[READ_ERROR].to_pylist()


def kinds(errors):
    return [error and error.split(":")[0] for error in errors]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_bytes(kind):
    data, errors = looked_up([IMAGE, b"", None], kind)
    assert data == [IMAGE, b"", None] and kinds(errors) == [None, None, "null"]


def test_structs():
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": IMAGE, "path": "a"}, None, {"bytes": None, "path": None}, {"bytes": None, "path": "b"}]
    data, errors = looked_up(rows, kind)
    assert data == [IMAGE, None, None, None] and kinds(errors) == [None, "null", "null", "missing"]
    assert looked_up([{"bytes": IMAGE}], pa.struct([("bytes", pa.binary())]))[0] == [IMAGE]


@pytest.mark.parametrize("kind", [pa.int64(), pa.list_(pa.binary()), pa.struct([("path", pa.string())]), pa.float32()])
def test_other_types_are_refused(kind):
    with pytest.raises(SourceError, match="source.image_column: image is"):
        check_image_type(kind, SourceConfig(path="x"))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_a_column_of_paths_needs_somewhere_to_look_them_up(kind):
    with pytest.raises(SourceError, match="image is .*: set source.root .*/ for absolute paths.*source.allow_urls=true"):
        check_paths(kind, SourceConfig(path="x"))
    check_paths(kind, SourceConfig(path="x", root="/"))
    check_paths(kind, SourceConfig(path="x", allow_urls=True))
    check_paths(pa.struct([("bytes", pa.binary()), ("path", pa.string())]), SourceConfig(path="x"))


def test_paths_never_leave_the_root(tmp_path):
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "in.jpg").write_bytes(IMAGE)
    (tmp_path / "out.jpg").write_bytes(IMAGE)
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2" / "out.jpg").write_bytes(IMAGE)
    (root / "link.jpg").symlink_to(tmp_path / "out.jpg")
    (root / "folder").symlink_to(tmp_path)
    (root / "good.jpg").symlink_to(root / "a" / "in.jpg")
    inside = ["a/in.jpg", "a/../a/in.jpg", str(root / "a" / "in.jpg"), "good.jpg"]
    outside = ["../out.jpg", str(tmp_path / "out.jpg"), "link.jpg", "folder/out.jpg", "../root2/out.jpg", "/etc/passwd"]
    other = ["file:///etc/passwd", "s3://bucket/x", "a", "gone.jpg", "a/in.jpg/x", "nul\0", "", None]
    data, errors = looked_up([*inside, *outside, *other], pa.string(), root=str(root))
    assert data[:4] == [IMAGE] * 4
    said = ["forbidden"] * 8 + ["missing"] * 3 + ["unreadable", "null", "null"]
    assert kinds(errors) == [None] * 4 + said and data[4:] == [None] * 14


def test_a_path_that_is_not_utf8_costs_its_own_row(tmp_path):
    (tmp_path / "a.jpg").write_bytes(IMAGE)
    (tmp_path / os.fsdecode(b"b\xff.jpg")).write_bytes(IMAGE)
    raw = [b"a.jpg", b"b\xff.jpg", b"\xfe\xff", b"a.jpg", None]
    for kind in (pa.string(), pa.large_string()):
        column = pa.array(raw, pa.binary() if kind == pa.string() else pa.large_binary())
        paths = pa.Array.from_buffers(kind, len(raw), column.buffers())
        struct = pa.StructArray.from_arrays([pa.nulls(len(raw), pa.binary()), paths], names=["bytes", "path"])
        for images in (paths, struct):
            data, errors = looked_up_in(images, root=str(tmp_path))
            assert data == [IMAGE, None, None, IMAGE, None]
            assert kinds(errors) == [None, "unreadable", "unreadable", None, "null"] and "b\\xff.jpg" in errors[1]


def test_paths_without_a_root():
    assert "source.root is not set" in looked_up(["a.jpg"], pa.large_string())[1][0]


class Pages(BaseHTTPRequestHandler):
    """/image, /moved (to a URL in the query), /drip, /headers, /chunks, /late, /big, /flaky, /gone, /short."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        page, _, query = self.path[1:].partition("?")
        self.server.seen.append((page, self.headers["Host"]))
        if page == "moved":
            return self.answer(302, b"", {"Location": query})
        if page == "flaky" and len(self.server.seen) % 2:
            return self.answer(503, b"later", {"Retry-After": "0"})
        if page == "short":
            return self.answer(200, IMAGE[:100], length=len(IMAGE))
        if page == "drip":
            return self.drip()
        if page in ("headers", "chunks"):
            return self.trickle(page)
        if page == "late":
            time.sleep(0.3)
            return self.answer(302, b"", {"Location": f"/{page}?{query}x"} if len(query) < 4 else {"Location": "/image"})
        if page == "big":
            return self.answer(200, bytes(2_000_000))
        return (
            self.answer(200, IMAGE)
            if page in ("image", "flaky")
            else self.answer(404 if page == "gone" else 403, b"no")
        )

    def answer(self, status, body, headers=None, length=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def trickle(self, page):
        """The image in the end, after two seconds of a header, or of the size of a piece, a byte at a time."""
        headers = b"HTTP/1.1 200 OK\r\n" + (b"X: " if page == "headers" else b"Transfer-Encoding: chunked\r\n\r\n0")
        size = f"\r\nContent-Length: {len(IMAGE)}\r\n\r\n" if page == "headers" else f"{len(IMAGE):x}\r\n"
        end = b"" if page == "headers" else b"\r\n0\r\n\r\n"
        try:
            self.wfile.write(headers)
            for _ in range(40):
                time.sleep(0.05)
                self.wfile.write(b"0")
            self.server.finished += 1
            self.wfile.write(size.encode() + IMAGE + end)
        except OSError:
            return

    def drip(self):
        self.send_response(200)
        self.end_headers()
        for _ in range(100):
            time.sleep(0.05)
            try:
                self.wfile.write(b"x")
            except OSError:
                return


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.setattr(levit_batch.storage.retry, "FIRST_WAIT", 0.01)
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        server.seen, server.finished = [], 0
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.shutdown()
    web._pool.cache_clear()


LISTED = partial(SourceConfig, path="x", allow_urls=True, url_hosts=["127.0.0.1"], url_timeout=2)


def test_urls_only_when_allowed(pages):
    data, errors = looked_up([f"{pages.url}/image"], pa.string())
    assert data == [None] and "set source.allow_urls" in errors[0] and not pages.seen


def test_listed_hosts(pages):
    values = [f"{pages.url}/{page}" for page in ("image", "gone", "private", "flaky", f"moved?{pages.url}/image")]
    data, errors = looked_up(values, pa.string(), allow_urls=True, url_hosts=["127.0.0.1"])
    assert data == [IMAGE, None, None, IMAGE, IMAGE]
    assert kinds(errors) == [None, "missing", "unreadable", None, None]
    assert "HTTP 403" in errors[2]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433", "127.1"]
)
def test_private_addresses_are_never_asked(pages, host):
    config = SourceConfig(path="x", allow_urls=True)
    data, error = fetch_url(f"http://{host}:{pages.server_port}/image", config)
    assert data is None and error.startswith("forbidden") and not pages.seen


PRIVATE = """10.0.0.1 192.168.1.1 169.254.169.254 172.16.0.9 100.64.0.1 224.0.0.1 0.0.0.0
fd00::1 fe80::1%eth0 64:ff9b::a00:1 2002:a00:1:: :: ::1 ::ffff:10.0.0.1
127.255.0.1 172.31.255.255 100.127.255.255 100.100.100.200 168.63.129.16 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1
198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 239.255.255.255 240.0.0.1 255.255.255.255 169.254.0.1
fec0::1 fc00::1 fd00:ec2::254 febf::1 ff02::1 ::10.0.0.1 ::8.8.8.8 ::ffff:168.63.129.16 ::ffff:0:10.0.0.1
64:ff9b::8.8.8.8 64:ff9b:1::1 2002:808:808::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:10::1 2001:db8::1 3fff::1
100::1 5f00::1 4000::1"""
PUBLIC = """8.8.8.8 1.1.1.1 100.63.255.255 100.128.0.1 168.63.129.17 172.15.0.1 172.32.0.1 192.0.1.1 198.17.0.1 198.20.0.1
223.255.255.255 2606:4700::1111 2001:4860:4860::8888 2a00:1450::1 ::ffff:8.8.8.8"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_what_counts_as_private(address):
    assert not web._public(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_what_counts_as_public(address):
    assert web._public(address)


def test_names_that_resolve_to_private_addresses(pages, monkeypatch):
    names = {"good.example": ["93.184.216.34", "127.0.0.1"], "cdn.example": ["127.0.0.1"]}
    really = socket.getaddrinfo

    def resolve(host, port, *others, **options):
        if host not in names:
            return really(host, port, *others, **options)
        addresses = names[host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(web.socket, "getaddrinfo", resolve)
    url = f"http://good.example:{pages.server_port}/image"
    assert "private address" in fetch_url(url, SourceConfig(path="x", allow_urls=True))[1]
    url = f"http://cdn.example:{pages.server_port}/image"
    assert "not in source.url_hosts" in fetch_url(url, LISTED())[1]
    assert not pages.seen
    assert fetch_url(url, LISTED(url_hosts=["*.example"])) == (IMAGE, None)
    assert pages.seen == [("image", f"cdn.example:{pages.server_port}")]


def test_redirects_are_checked_like_urls(pages):
    here = pages.url.replace("127.0.0.1", "localhost")
    for target in (f"{here}/image", "file:///etc/passwd", "ftp://127.0.0.1/x", "//localhost/x"):
        _, error = fetch_url(f"{pages.url}/moved?{target}", LISTED())
        assert error.startswith("forbidden"), error
    assert all(page == "moved" for page, _ in pages.seen)
    loop = f"{pages.url}/moved?/moved?x"
    assert fetch_url(f"{pages.url}/moved?{loop}", LISTED())[1].startswith(("unreadable", "forbidden"))


def test_size_time_and_breaks_are_limited(pages):
    assert "url_max_bytes" in fetch_url(f"{pages.url}/big", LISTED(url_max_bytes=1_000_000))[1]
    assert fetch_url(f"{pages.url}/big", LISTED())[0] == bytes(2_000_000)
    assert "timed out" in fetch_url(f"{pages.url}/drip", LISTED(url_timeout=0.2))[1]
    assert fetch_url(f"{pages.url}/short", LISTED())[1].startswith("unreadable")


@pytest.mark.parametrize("page", ["headers", "chunks", "late"])
def test_a_url_has_one_deadline_for_everything(pages, page):
    """Headers, sizes of pieces and redirects that each come in time."""
    assert fetch_url(f"{pages.url}/{page}", LISTED(url_timeout=0.5)) == (
        None,
        f"unreadable: {pages.url}/{page}: timed out",
    )
    assert len(pages.seen) <= 2  # no second try, nor redirects without end
    assert fetch_url(f"{pages.url}/image", LISTED()) == (IMAGE, None)  # and not over the connection that hangs
    assert fetch_url(f"{pages.url}/{page}", LISTED(url_timeout=30)) == (IMAGE, None)
    assert pages.finished == (page != "late")  # for the patient one only


def test_a_resolver_that_hangs(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(web.socket, "getaddrinfo", lambda *_, **__: over.wait(30))
    _, error = fetch_url("http://images.example/x", LISTED(url_hosts=[], url_timeout=0.2))
    over.set()
    assert error == "unreadable: http://images.example/x: timed out"


def test_a_tls_server_that_never_shakes_hands():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/x"
        assert fetch_url(url, LISTED(url_timeout=0.3)) == (None, f"unreadable: {url}: timed out")


def test_errors_hide_signatures_and_passwords(pages):
    _, error = fetch_url(f"{pages.url.replace('http://', 'http://me:pass@')}/gone?signature=secret", LISTED())
    assert "secret" not in error and "pass" not in error and error.startswith("missing: http://127.0.0.1")


def test_no_server_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert fetch_url(f"http://127.0.0.1:{port}/x", LISTED(url_timeout=0.3))[1].startswith("unreadable")
    assert fetch_url("http://", LISTED())[1].startswith("forbidden")
    assert fetch_url("http://127.0.0.1:99999999/x", LISTED())[1].startswith("unreadable")
