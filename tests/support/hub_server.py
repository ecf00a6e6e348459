"""A small Hugging Face Hub on loopback for the real `huggingface_hub` and `datasets` clients.

    with HubServer(folder) as hub:          # folder/datasets/ORG/NAME/... and folder/models/ORG/NAME/...
        hub.use(monkeypatch)                # this process talks to it; hub.environment is for child processes
        hub.gate("org/name"); hub.hide("org/secret"); hub.tokens.add("hf_x")
        hub.fail_every(5)                   # every fifth request answers 503
        hub.bytes_served, hub.requests      # bytes of file bodies sent; what was asked for

Branches other than main are sibling folders `NAME@refs%2Fconvert%2Fparquet`. A commit is the hash of a tree, and a tree that
was served once stays readable by its commit. Files are answered whole or by range; uploads are in `hub_upload.py`.
"""

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.hub_repo import Repo, Tree
from tests.support.hub_upload import commit, preupload


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None
    token: str | None
    status: int
    sent: int  # bytes of the body


@dataclass
class HubServer:
    """Serves `folder`; start with `with`. Everything may be changed while it runs."""

    folder: Path
    tokens: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)
    delay: float = 0.0

    def __post_init__(self):
        self.folder = Path(self.folder)
        self._repos: dict[tuple[str, str], Repo] = {}
        self._lock = threading.Lock()
        self._count, self._fail = 0, None

    def __enter__(self) -> "HubServer":
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs in its environment to talk to this server."""
        return {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

    def use(self, monkeypatch, cache: Path | None = None) -> None:
        """Point the Hub's clients in this process, and in processes started from now on, at this server."""
        import datasets.config
        import huggingface_hub.constants as constants
        from huggingface_hub import HfFileSystem, hf_api

        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hf_api.api, "endpoint", self.url)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", self.url)
        monkeypatch.setattr(
            datasets.config, "HUB_DATASETS_URL", self.url + "/datasets/{repo_id}/resolve/{revision}/{path}"
        )
        monkeypatch.setattr(datasets.config, "USE_PARQUET_EXPORT", False)  # another server, which is not here
        cache = cache or self.folder / ".cache"
        monkeypatch.setenv("HF_HOME", str(cache))
        monkeypatch.setenv("HF_HUB_CACHE", str(cache / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache / "datasets")
        HfFileSystem.clear_instance_cache()

    def fail_every(self, n: int, status: int = 503, retry_after: float | None = 0) -> None:
        """Every n-th request from now on answers `status`; n = 0 stops that, n = 1 fails all."""
        with self._lock:
            self._count, self._fail = 0, (n, status, retry_after) if n else None

    def gate(self, repo: str) -> None:
        self.gated.add(repo)

    def hide(self, repo: str) -> None:
        self.private.add(repo)

    @property
    def bytes_served(self) -> int:
        """Bytes of file contents sent since the last `reset`; answers of the API do not count."""
        return sum(request.sent for request in self.requests if "/resolve/" in request.path)

    def reset(self) -> None:
        self.requests.clear()

    def repo(self, kind: str, name: str) -> Repo | None:
        """kind: datasets | models; name: ORG/NAME."""
        with self._lock:
            found = self._repos.setdefault((kind, name), Repo(self.folder / kind, name))
        return found if found.exists() else None

    def failure(self) -> tuple[int, float | None] | None:
        """The status this request shall fail with, if it is its turn."""
        with self._lock:
            self._count += 1
            if self._fail and self._count % self._fail[0] == 0:
                return self._fail[1], self._fail[2]
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one packet: two would wait for each other's acknowledgement

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(self.hub.delay)
        if failure := self.hub.failure():
            status, retry_after = failure
            extra = {} if retry_after is None else {"Retry-After": str(retry_after)}
            return self.reply(status, {"error": "try again"}, extra)
        parts = [part for part in urlsplit(self.path).path.split("/") if part]
        try:
            if parts[:1] == ["api"]:
                return self.api(parts[1:])
            return self.resolve(parts)
        except (ValueError, IndexError, KeyError) as e:
            return self.reply(404, {"error": f"not found: {e}"})

    @property
    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def allowed(self, name: str, whole: bool) -> bool:
        """Whether this caller may see the repository (`whole`: also its files); answers itself when not."""
        known = self.token in self.hub.tokens
        if name in self.hub.private and not known:
            self.error(401, "RepoNotFound", "Repository not found")
        elif whole and name in self.hub.gated and not known:
            self.error(403 if self.token else 401, "GatedRepo", f"Access to {name} is restricted")
        else:
            return True
        return False

    def api(self, parts: list[str]) -> None:
        if parts == ["whoami-v2"]:
            known = self.token in self.hub.tokens
            return (
                self.reply(200, {"name": "tester", "type": "user", "orgs": [], "auth": {}})
                if known
                else self.error(401, "", "")
            )
        if parts == ["repos", "create"]:
            return self.create()
        if parts == ["validate-yaml"]:
            return self.reply(200, {"errors": [], "warnings": []})
        kind, name, rest = parts[0], unquote("/".join(parts[1:3])), parts[3:]
        repo = self.hub.repo(kind, name)
        if repo is None:
            return self.error(404, "RepoNotFound", "Repository not found")
        if not self.allowed(name, whole=bool(rest[:1] == ["tree"])):
            return None
        if rest[:1] == ["refs"]:
            branches = [
                {"name": b, "ref": f"refs/heads/{b}", "targetCommit": repo.tree(b).commit} for b in repo.branches()
            ]
            return self.reply(200, {"branches": branches, "converts": [], "tags": []})
        if kind == "buckets":  # without revisions
            return self.bucket(name, repo.tree("main"), rest)
        action, revision = (rest[0], unquote(rest[1])) if rest else ("revision", "main")
        tree = repo.tree(revision)
        if tree is None:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        path = unquote("/".join(rest[2:]))
        return {
            "revision": self.info, "tree": self.tree, "paths-info": self.paths_info, "preupload": self.preupload,
            "commit": self.commit,
        }[action](name, repo, tree, path)  # fmt: skip

    def bucket(self, name: str, tree: Tree, rest: list[str]) -> None:
        if not rest:
            facts = {"id": name, "private": name in self.hub.private, "createdAt": "2026-01-01T00:00:00.000Z"}
            return self.reply(200, facts | {"size": sum(map(tree.size, tree.files)), "totalFiles": len(tree.files)})
        if rest[0] == "paths-info":
            entries = filter(None, map(tree.entry, json.loads(self.body)["paths"]))
        else:
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
            entries = tree.entries(unquote("/".join(rest[1:])), recursive) or []
        return self.reply(200, [one | {"xetHash": one.pop("oid"), "uploadedAt": None} for one in entries])

    def info(self, name: str, repo: Repo, tree: Tree, path: str) -> None:
        siblings = [{"rfilename": path, "size": tree.size(path), "blobId": tree.oid(path)} for path in tree.files]
        gated = "manual" if name in self.hub.gated else False
        facts = {
            "id": name,
            "sha": tree.commit,
            "siblings": siblings,
            "gated": gated,
            "private": name in self.hub.private,
        }
        self.reply(200, {**facts, "tags": [], "downloads": 0, "likes": 0, "disabled": False})

    def tree(self, name: str, repo: Repo, tree: Tree, path: str) -> None:
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
        entries = tree.entries(path, recursive)
        if entries is None:
            return self.error(404, "EntryNotFound", f"{path} does not exist")
        return self.reply(200, entries)

    def paths_info(self, name: str, repo: Repo, tree: Tree, path: str) -> None:
        wanted = parse_qs(self.body.decode()).get("paths", [])
        self.reply(200, [entry for path in wanted if (entry := tree.entry(path))])

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'tester'}/{asked['name']}"
        if self.token not in self.hub.tokens:
            return self.error(401, "", "Invalid username or password.")
        kind = asked.get("type", "model") + "s"
        if self.hub.repo(kind, name):
            return self.reply(409, {"error": "exists", "url": f"{self.hub.url}/{kind}/{name}"})
        (self.hub.folder / kind / name).mkdir(parents=True)
        if asked.get("private") or asked.get("visibility") == "private":
            self.hub.hide(name)
        return self.reply(200, {"url": f"{self.hub.url}/{kind}/{name}", "name": name, "id": name})

    def preupload(self, name: str, repo: Repo, tree: Tree, path: str) -> None:
        self.reply(200, preupload(tree, json.loads(self.body)))

    def commit(self, name: str, repo: Repo, tree: Tree, path: str) -> None:
        if self.token not in self.hub.tokens:
            return self.error(401, "", "Invalid username or password.")
        commit(repo, self.body)
        new = repo.tree("main").commit
        return self.reply(200, {"success": True, "commitOid": new, "commitUrl": f"{self.hub.url}/{name}/commit/{new}"})

    def resolve(self, parts: list[str]) -> None:
        kind = parts.pop(0) if parts[0] in ("datasets", "models", "buckets") else "models"
        if kind == "buckets":
            parts.insert(3, "main")
        name, revision, path = "/".join(parts[:2]), unquote(parts[3]), unquote("/".join(parts[4:]))
        repo = self.hub.repo(kind, name)
        if repo is None or parts[2] != "resolve":
            return self.error(404, "RepoNotFound", "Repository not found")
        if not self.allowed(name, whole=True):
            return None
        tree = repo.tree(revision)
        if tree is None:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if path not in tree.files:
            return self.error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": tree.commit})
        facts = {"X-Repo-Commit": tree.commit, "ETag": f'"{tree.oid(path)}"', "Accept-Ranges": "bytes"}
        return self.send_part(tree.files[path], facts)

    def send_part(self, data: bytes, facts: dict[str, str]) -> None:
        asked, total = self.headers.get("Range"), len(data)
        if not asked:
            return self.reply(200, data, facts)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, total - int(last))
        stop = min(int(last) + 1, total) if first and last else total
        if start >= total:
            return self.reply(416, b"", {"Content-Range": f"bytes */{total}"})
        return self.reply(206, data[start:stop], {**facts, "Content-Range": f"bytes {start}-{stop - 1}/{total}"})

    def error(self, status: int, code: str, message: str, extra: dict[str, str] | None = None) -> None:
        self.reply(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message, **(extra or {})})

    def reply(self, status: int, body: object, extra: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in (extra or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/octet-stream" if isinstance(body, bytes) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        sent = 0 if self.command == "HEAD" else len(data)
        request = Request(self.command, self.path, self.headers.get("Range"), self.token, status, sent)
        self.hub.requests.append(request)
        if sent:
            self.wfile.write(data)
