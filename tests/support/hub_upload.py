"""Uploads to the test Hub: every file goes in the commit itself, as the Hub does with small ones."""

import base64
import json

from tests.support.hub_repo import Repo, Tree


def preupload(tree: Tree, asked: dict) -> dict:
    """How the client shall upload each file, and which it need not because they are there already."""
    files = []
    for file in asked["files"]:
        known = tree.oid(file["path"]) if file["path"] in tree.files else None
        files.append({"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": known})
    return {"files": files}


def commit(repo: Repo, body: bytes) -> None:
    """Apply the lines of a commit to the repository's folder."""
    for line in body.splitlines():
        said = json.loads(line)
        value = said["value"]
        if said["key"] == "file":
            path = repo.folder / value["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(value["content"]))
        elif said["key"] == "deletedFile":
            (repo.folder / value["path"]).unlink()
        elif said["key"] not in ("header",):
            raise ValueError(f"{said['key']} is not spoken here")
