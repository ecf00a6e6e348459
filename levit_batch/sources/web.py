"""Images by URL, when `source.allow_urls` says so: only from hosts that are allowed, never from inside the network."""

import ipaddress
import socket
import time
from functools import lru_cache
from urllib.parse import urljoin, urlsplit

import urllib3

from levit_batch.config import SourceConfig
from levit_batch.retry import PASSING_STATUS, wait_seconds
from levit_batch.storage import shown

ATTEMPTS = 3
REDIRECTS = 5
PIECE = 1 << 16  # bytes read between two looks at the clock
HEADERS = {"User-Agent": "levit-batch", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
TUNNELS = tuple(ipaddress.ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))

Found = tuple[bytes | None, str | None]


class Refused(Exception):
    """The final word on a URL, as "kind: message"."""


class HTTPFailure(OSError):
    """An answer that another attempt may better."""

    def __init__(self, status: int, headers: urllib3.HTTPHeaderDict):
        super().__init__(f"HTTP {status}")
        self.status, self.headers = status, headers


def fetch_url(url: str, config: SourceConfig) -> Found:
    """The bytes at `url`, or "kind: message". Never raises: a dead link is its row's error, not the chunk's."""
    if not config.allow_urls:
        return None, f"forbidden: {shown(url)}: set source.allow_urls to fetch URLs"
    deadline = time.monotonic() + config.url_timeout * ATTEMPTS
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _follow(url, config), None
        except Refused as e:
            return None, str(e)
        except (OSError, urllib3.exceptions.HTTPError) as e:
            reason = "timed out" if isinstance(e, TimeoutError | urllib3.exceptions.TimeoutError) else _brief(e)
            lasting = isinstance(e, HTTPFailure) and e.status not in PASSING_STATUS
            wait = wait_seconds(e, attempt)
        except ValueError as e:
            return None, f"unreadable: {shown(url)}: {e}"
        if lasting or attempt == ATTEMPTS or time.monotonic() + wait > deadline:
            break
        time.sleep(wait)
    return None, f"unreadable: {shown(url)}: {reason}"


def _follow(url: str, config: SourceConfig) -> bytes:
    """The bytes at the end of the redirects that start at `url`, each of them checked."""
    deadline = time.monotonic() + config.url_timeout
    for _ in range(REDIRECTS + 1):
        answer = _get(url, config)
        try:
            place = answer.headers.get("Location")
            if not (answer.status in (301, 302, 303, 307, 308) and place):
                return _body(url, answer, config, deadline)
            url = urljoin(url, place)
        finally:
            answer.close()
    raise Refused(f"unreadable: {shown(url)}: more than {REDIRECTS} redirects")


def _get(url: str, config: SourceConfig) -> urllib3.BaseHTTPResponse:
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in ("http", "https") or not host:
        raise Refused(f"forbidden: {shown(url)}: not an http(s) URL")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = _address(host, port, url, config.url_hosts)
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
        timeout=urllib3.Timeout(connect=config.url_timeout, read=config.url_timeout),
    )


def _address(host: str, port: int, url: str, hosts: list[str]) -> str:
    """The address to connect to. It is looked up once, so that what was checked is what is connected to."""
    listed = any(host == name or (name.startswith("*.") and host.endswith(name[1:])) for name in hosts)
    if hosts and not listed:
        raise Refused(f"forbidden: {shown(url)}: {host} is not in source.url_hosts")
    found = [entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not listed and not all(_public(address) for address in found):
        raise Refused(f"forbidden: {shown(url)}: {host} is a private address; list it in source.url_hosts to allow it")
    return found[0]


def _public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if any(ip in net for net in TUNNELS):  # these carry IPv4 addresses that are not looked at here
            return False
        ip = ip.ipv4_mapped or ip
    return ip.is_global and not ip.is_multicast


@lru_cache(64)
def _pool(kind: str, address: str, port: int, host: str) -> urllib3.HTTPConnectionPool:
    if kind == "http":
        return urllib3.HTTPConnectionPool(address, port)
    return urllib3.HTTPSConnectionPool(address, port, server_hostname=host, assert_hostname=host)


def _body(url: str, answer: urllib3.BaseHTTPResponse, config: SourceConfig, deadline: float) -> bytes:
    if answer.status in (404, 410):
        raise Refused(f"missing: {shown(url)}: HTTP {answer.status}")
    if answer.status != 200:
        raise HTTPFailure(answer.status, answer.headers)
    data = bytearray()
    while piece := answer.read1(PIECE):
        data += piece
        if len(data) > config.url_max_bytes:
            raise Refused(f"unreadable: {shown(url)}: more than source.url_max_bytes ({config.url_max_bytes})")
        if time.monotonic() > deadline:
            raise TimeoutError
    if answer.length_remaining:
        raise OSError("the connection ended before the file did")
    return bytes(data)


def _brief(error: Exception) -> str:
    """The reason without the pool's address, which may say more about the network than a row should."""
    reason = getattr(error, "reason", None) or error
    return str(reason).rpartition(": ")[2][:200] or type(error).__name__
