"""Images by URL, when `source.allow_urls` says so: only from hosts that are allowed, never from inside the network."""

import http.client
import io
import ipaddress
import socket
import threading
import time
from functools import lru_cache
from queue import Empty, SimpleQueue
from urllib.parse import urljoin, urlsplit

import urllib3

from levit_batch.errors import LastingError
from levit_batch.job.config import SourceConfig
from levit_batch.storage.retry import retry
from levit_batch.storage.url import shown

ATTEMPTS = 3
REDIRECTS = 5
PIECE = 1 << 16  # bytes read at a time
HEADERS = {"User-Agent": "levit-batch", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
# Everything that IANA's registries of special purposes keep from the public, and what clouds answer their machines on;
# Python's own tables differ from version to version.
NOT_PUBLIC = [
    ipaddress.ip_network(net)
    for net in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
        "203.0.113.0/24", "224.0.0.0/3",
        "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",  # Teredo, ORCHID; documentation; 6to4; documentation
    )
]  # fmt: skip
GLOBAL6 = ipaddress.ip_network("2000::/3")  # all that is routed; not NAT64, nor IPv4 in any other form

Found = tuple[bytes | None, str | None]


class _Refused(Exception):
    """The final word on a URL, as "kind: message"."""


class _HTTPFailure(OSError):
    """An answer that another attempt may better."""

    def __init__(self, status: int, headers: urllib3.HTTPHeaderDict):
        super().__init__(f"HTTP {status}")
        self.status, self.headers = status, headers


def fetch_url(url: str, config: SourceConfig) -> Found:
    """The bytes at `url`, or "kind: message". Never raises: a dead link is its row's error, not the chunk's."""
    if not config.allow_urls:
        return None, f"forbidden: {shown(url)}: set source.allow_urls to fetch URLs"
    deadline = time.monotonic() + config.url_timeout  # of everything: names, redirects, all attempts
    try:
        return retry(lambda: _follow(url, config, deadline), ATTEMPTS, deadline), None
    except _Refused as e:
        return None, str(e)
    except (OSError, urllib3.exceptions.HTTPError) as e:
        return None, f"unreadable: {shown(url)}: {_reason(e.__cause__ if isinstance(e, LastingError) else e)}"
    except ValueError as e:
        return None, f"unreadable: {shown(url)}: {e}"


def _follow(url: str, config: SourceConfig, deadline: float) -> bytes:
    """The bytes at the end of the redirects that start at `url`, each of them checked."""
    for _ in range(REDIRECTS + 1):
        answer = _get(url, config, deadline)
        try:
            place = answer.headers.get("Location")
            if not (answer.status in (301, 302, 303, 307, 308) and place):
                return _body(url, answer, config)
            url = urljoin(url, place)
        finally:
            answer.close()
    raise _Refused(f"unreadable: {shown(url)}: more than {REDIRECTS} redirects")


def _get(url: str, config: SourceConfig, deadline: float) -> urllib3.BaseHTTPResponse:
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in ("http", "https") or not host:
        raise _Refused(f"forbidden: {shown(url)}: not an http(s) URL")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = _address(host, port, url, config.url_hosts, deadline)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = HEADERS | {"Host": parts.netloc.rpartition("@")[2]}
    return _pool(parts.scheme, address, port, host).urlopen(
        "GET",
        urllib3.util.parse_url(path).url,
        headers=headers,
        redirect=False,
        retries=False,
        preload_content=False,
        decode_content=False,
        timeout=urllib3.Timeout(total=_left(deadline)),
    )


def _address(host: str, port: int, url: str, hosts: list[str], deadline: float) -> str:
    """The address to connect to. It is looked up once, so that what was checked is what is connected to."""
    listed = any(host == name or (name.startswith("*.") and host.endswith(name[1:])) for name in hosts)
    if hosts and not listed:
        raise _Refused(f"forbidden: {shown(url)}: {host} is not in source.url_hosts")
    addresses = _resolved(host, port, deadline)
    if not listed and not all(_public(address) for address in addresses):
        raise _Refused(f"forbidden: {shown(url)}: {host} is a private address; list it in source.url_hosts to allow it")
    return addresses[0]


def _resolved(host: str, port: int, deadline: float) -> list[str]:
    """The addresses of `host`. The resolver cannot be told to stop: at the deadline it is left to its own time limit."""
    answer: SimpleQueue = SimpleQueue()

    def ask() -> None:
        try:
            answer.put([entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except Exception as e:
            answer.put(e)

    threading.Thread(target=ask, daemon=True).start()
    try:
        resolved = answer.get(timeout=_left(deadline))
    except Empty:
        raise TimeoutError from None
    if isinstance(resolved, Exception):
        raise resolved
    return resolved


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return (ip.version == 4 or ip in GLOBAL6) and not any(ip in net for net in NOT_PUBLIC)


class Clocked(io.RawIOBase):
    """What a socket receives, all of it within the timeout that the socket has now: its own starts anew with each byte."""

    def __init__(self, sock: socket.socket, stream: io.RawIOBase):
        self.sock, self.stream, self.deadline = sock, stream, time.monotonic() + sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:
        self.sock.settimeout(_left(self.deadline))
        return self.stream.readinto(buffer)

    def close(self) -> None:
        self.stream.close()
        super().close()


class ClockedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args, **options):
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(Clocked(sock, self.fp.detach()))


class ClockedConnection(urllib3.connection.HTTPConnection):
    response_class = ClockedResponse


class ClockedTLS(urllib3.connection.HTTPSConnection):
    response_class = ClockedResponse

    def _new_conn(self) -> socket.socket:
        """Connected, with what is left of the time for the handshake."""
        deadline = time.monotonic() + self.timeout
        sock = super()._new_conn()
        sock.settimeout(_left(deadline))
        return sock


class Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = ClockedConnection


class TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = ClockedTLS


@lru_cache(64)
def _pool(kind: str, address: str, port: int, host: str) -> urllib3.HTTPConnectionPool:
    return (
        Pool(address, port) if kind == "http" else TLSPool(address, port, server_hostname=host, assert_hostname=host)
    )


def _body(url: str, answer: urllib3.BaseHTTPResponse, config: SourceConfig) -> bytes:
    if answer.status in (404, 410):
        raise _Refused(f"missing: {shown(url)}: HTTP {answer.status}")
    if answer.status != 200:
        raise _HTTPFailure(answer.status, answer.headers)
    data = bytearray()
    while piece := answer.read1(PIECE):
        data += piece
        if len(data) > config.url_max_bytes:
            raise _Refused(f"unreadable: {shown(url)}: more than source.url_max_bytes ({config.url_max_bytes})")
    if answer.length_remaining:
        raise OSError("the connection ended before the file did")
    return bytes(data)


def _reason(error: BaseException) -> str:
    """Why it failed, without the pool's address, which may say more about the network than a row should."""
    if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError):
        return "timed out"
    return str(getattr(error, "reason", None) or error).rpartition(": ")[2][:200] or type(error).__name__
